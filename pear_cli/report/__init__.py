"""What a person reads: listings, summaries and drawings of what the store holds."""
