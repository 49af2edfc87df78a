"""An adapted model: made, described, made again, merged, and what it costs."""
