"""What is known of cases and data sets, without reading one of their files."""
