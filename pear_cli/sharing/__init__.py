"""Sharing: who serves in a pruned adapter's place (one share rule a function)."""
