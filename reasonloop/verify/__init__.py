"""Answer comparison, and verification in workers that can be killed."""
