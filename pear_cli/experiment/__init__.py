"""From settings to what they mean: the steps of an experiment, and their keys."""
