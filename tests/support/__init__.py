"""What tests share: made cases, a Hub on loopback, clusters, other processes."""
