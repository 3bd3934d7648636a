"""Other trainers' rollouts: read from what they leave on disk, matched to a task's problems, and judged again."""
