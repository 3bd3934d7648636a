"""Programs judged by their tests, in a sandbox."""
