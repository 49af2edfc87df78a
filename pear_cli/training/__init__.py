"""Epochs, batches, devices and trackers."""
