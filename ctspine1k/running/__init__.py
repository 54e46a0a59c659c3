"""How work is run: processes, clusters, threads, retries, files that appear whole."""
