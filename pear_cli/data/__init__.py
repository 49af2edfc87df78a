"""Labelled images as arrays, one family of datasets a file."""
