"""Held-out evaluation: avg@k, unbiased pass@k and their intervals, and the table that a run ends with."""
