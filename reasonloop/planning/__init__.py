"""What a run takes on machines that aren't here: `--dry-run` with `[plan]` (docs/scale.md). Free of torch."""
