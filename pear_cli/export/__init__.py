"""Models that leave the store: in one file, for machines that have none."""
