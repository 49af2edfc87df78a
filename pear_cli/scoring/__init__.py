"""Scoring: how important every unit of a trained adaptation is (one criterion a function)."""
