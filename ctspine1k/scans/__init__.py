"""The tables that a scan writes, and what they say about cases."""
