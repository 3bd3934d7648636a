"""The trajectory store: every rollout of a run in Parquet segments, DuckDB over them, and expert selection."""
