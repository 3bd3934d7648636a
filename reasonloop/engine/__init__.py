"""Sampling engines: prompts in, rollouts with exact behaviour log-probs out."""
