"""What is pruned, who serves in its place, and what is kept."""
