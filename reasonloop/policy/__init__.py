"""Policies: Hugging Face folders in and out, packed forward passes, log-probs."""
