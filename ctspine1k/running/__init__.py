"""How work is run: processes, clusters, threads, stops, retries, files that are written completely."""
