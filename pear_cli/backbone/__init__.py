"""The frozen network: a timm model, its weights, sites, channels and widths."""
