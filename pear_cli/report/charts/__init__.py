"""Charts as Vega-Lite specifications: one file a kind, one function a chart, plain data in."""
