"""What artifacts say, computed from manifests alone."""
