"""What is in the files, and whether it is whole, consistent and plausible."""
