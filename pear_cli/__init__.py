"""Pear: visual parameter-efficient fine-tuning with adapter pruning and sharing."""
