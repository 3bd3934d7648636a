"""The trajectory store: every rollout of a run in Parquet segments, DuckDB over them, and expert selection."""

from reasonloop.store.database import connect, query
from reasonloop.store.experts import Experts, SuccessRate, select_experts, success_rates
from reasonloop.store.segments import Segment, TrajectoryStore
from reasonloop.store.show import print_rows
from reasonloop.store.weights import expert_weights

__all__ = [
    "Experts",
    "Segment",
    "SuccessRate",
    "TrajectoryStore",
    "connect",
    "expert_weights",
    "print_rows",
    "query",
    "select_experts",
    "success_rates",
]
