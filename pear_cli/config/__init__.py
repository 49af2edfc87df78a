"""Typed settings, their choices, and the way from a Hydra node to them."""
