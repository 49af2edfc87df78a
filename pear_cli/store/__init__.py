"""The stage store: artifacts named by all that made them."""
