"""A sweep while it runs: its jobs, its result files, what a terminal shows of it."""
