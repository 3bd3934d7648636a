"""Forgetting: which problems a later policy no longer solves that an earlier one solved (RLoop, arXiv 2511.04285)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reasonloop.analysis.arms import EvaluatedPolicy, largest_k, on_shared_problems

SOLVED = 0.5
"""A problem is solved at a checkpoint where its mean accuracy is at least this"""

SAMPLES = 32
"""Samples per problem below which "solved" is mostly luck"""


@dataclass(frozen=True, slots=True)
class Forgetting:
    """Solved sets over T checkpoints and what was lost between them."""

    solved: list[int]
    """T: |solved_t|"""
    matrix: list[list[float]]
    """T x T: [s][t] = |solved_s minus solved_t| / |solved_s|; NaN where solved_s is empty. Forgetting proper is s < t; for
    s > t it is the share of solved_s that t had not learned yet"""
    lost: list[list[int]]
    """T x T: |solved_s minus solved_t|"""
    ever_solved: int
    """|union of all solved sets|"""
    ever_solved_gap: int
    """ever_solved - |solved at the end|: problems that some checkpoint solved and the last one doesn't"""
    few_samples: bool
    """Whether some problem has fewer than SAMPLES samples"""


def forgetting(checkpoints: Sequence[EvaluatedPolicy], *, reachable: bool = False) -> Forgetting:
    """The forgetting matrix over policies in the order given, on the problems that all of them have.

    solved_t: problems with accuracy >= SOLVED at t; `reachable`: with at least one right sample. InputError for no common
    problem.
    """
    accuracy_TP = on_shared_problems(checkpoints, "avg")
    solved_TP = (accuracy_TP > 0 if reachable else accuracy_TP >= SOLVED).astype(np.float64)
    kept_ST, size_S1 = solved_TP @ solved_TP.T, solved_TP.sum(axis=1, keepdims=True)
    matrix_ST = np.divide(size_S1 - kept_ST, size_S1, out=np.full_like(kept_ST, np.nan), where=size_S1 > 0)
    lost_ST = (size_S1 - kept_ST).round().astype(int)
    solved, ever = size_S1[:, 0].astype(int).tolist(), int(solved_TP.any(axis=0).sum())
    few = largest_k(checkpoints) < SAMPLES
    return Forgetting(solved, matrix_ST.tolist(), lost_ST.tolist(), ever, ever - solved[-1], few)
