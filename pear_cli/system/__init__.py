"""Files, processes, streams, progress and seeds."""
