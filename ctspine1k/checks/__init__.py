"""What is in the files, and whether they are complete, consistent and plausible."""
