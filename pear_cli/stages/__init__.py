"""The stages of an experiment: each loads, computes and saves."""
