"""The bridge from the command line to Hydra: compose, guard, sweep, jobs, results."""
