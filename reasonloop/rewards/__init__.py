"""Rewards: from verified rollouts to one number each, with its parts kept."""
