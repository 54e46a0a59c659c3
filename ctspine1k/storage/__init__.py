"""Arrays compressed in chunks, as columns of a data set, read in parts."""
