"""What is known about cases and data sets, without reading any of their files."""
