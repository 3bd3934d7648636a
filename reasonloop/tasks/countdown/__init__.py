"""Countdown: reach a target from given numbers, by searching in writing."""
