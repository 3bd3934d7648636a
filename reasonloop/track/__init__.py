"""Trackers: a run's metrics.jsonl, followed from outside into wandb, trackio, TensorBoard, or one of the user's own.

Nothing that trains knows of them. Each tracker has a process of its own, which reads what the run writes down anyway.
"""

from reasonloop.track.points import Point
from reasonloop.track.processes import Followers
from reasonloop.track.protocol import TrackedRun, Tracker
from reasonloop.track.registry import check_trackers

__all__ = ["Followers", "Point", "TrackedRun", "Tracker", "check_trackers"]
