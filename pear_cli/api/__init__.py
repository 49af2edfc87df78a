"""Pear as a library: adapters in somebody's own training loop, and many tasks on one backbone."""
