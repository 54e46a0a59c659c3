"""From the files of a case to the rows of a `datasets.Dataset`."""
