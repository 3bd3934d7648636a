"""A run: its folder, checkpoints and progress."""
