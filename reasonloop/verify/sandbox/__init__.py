"""Judging model-written programs in a sandbox that they cannot leave."""
