"""Forgetting: which problems a later policy no longer solves that an earlier one solved (RLoop, arXiv 2511.04285)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonloop.analysis.arms import Evaluation
from reasonloop.errors import InputError

SOLVED = 0.5
"""A problem is solved at a checkpoint where its mean accuracy is at least this"""

SAMPLES = 32
"""Samples per problem below which "solved" is mostly luck"""


@dataclass(frozen=True, slots=True)
class Forgetting:
    """Solved sets over T checkpoints and what was lost between them."""

    names: list[str]
    """T checkpoints, in order"""
    rollouts: list[int]
    """T: rollouts spent by then"""
    solved: list[int]
    """T: |solved_t|"""
    matrix: list[list[float]]
    """T x T: [s][t] = |solved_s minus solved_t| / |solved_s|; NaN where solved_s is empty. Forgetting proper is s < t; for
    s > t it is the share of solved_s that t had not learned yet"""
    ever_solved: int
    """|union of all solved sets|"""
    ever_solved_gap: int
    """ever_solved - |solved at the end|: problems that some checkpoint solved and the last one doesn't"""
    problems: int
    threshold: float
    """What "solved" means here; "reachable" has 1/n"""
    few_samples: bool
    """Whether some problem has fewer than SAMPLES samples"""

    def rows(self) -> list[dict[str, Any]]:
        """A row per ordered pair of checkpoints: from, to, rollouts of both, forgetting (None where undefined)."""
        return [
            {
                "from": self.names[s],
                "to": self.names[t],
                "from_rollouts": self.rollouts[s],
                "to_rollouts": self.rollouts[t],
                "forgetting": None if math.isnan(share) else share,
            }
            for s, row in enumerate(self.matrix)
            for t, share in enumerate(row)
        ]


def forgetting(checkpoints: Sequence[Evaluation], *, reachable: bool = False, threshold: float = SOLVED) -> Forgetting:
    """The forgetting matrix over an arm's evaluations, in the order given.

    solved_t: problems with accuracy >= `threshold` at t; `reachable`: with at least one right sample. Over the problems
    that all checkpoints have. InputError for no checkpoints or no common problem.
    """
    if not checkpoints:
        raise InputError("forgetting: no evaluation with counts per problem; expected at least one")
    shared = [p for p in checkpoints[0].correct if all(p in other.correct for other in checkpoints)]
    if not shared:
        raise InputError("forgetting: the evaluations have no problem in common; expected those of one split")
    c_TP = np.array([[e.correct[p] for p in shared] for e in checkpoints])
    n_TP = np.array([[e.samples[p] for p in shared] for e in checkpoints])
    solved_TP = c_TP >= 1 if reachable else c_TP >= threshold * n_TP
    return Forgetting(
        names=[e.name for e in checkpoints],
        rollouts=[e.rollouts for e in checkpoints],
        solved=solved_TP.sum(axis=1).tolist(),
        matrix=forgetting_matrix(solved_TP).tolist(),
        ever_solved=int(solved_TP.any(axis=0).sum()),
        ever_solved_gap=int(solved_TP.any(axis=0).sum() - solved_TP[-1].sum()),
        problems=len(shared),
        threshold=1 / int(n_TP.min()) if reachable else threshold,
        few_samples=bool((n_TP < SAMPLES).any()),
    )


def forgetting_matrix(solved_TP: NDArray[np.bool_]) -> NDArray[np.float64]:
    """float64 [T, T]: |solved_s minus solved_t| / |solved_s| from bool [checkpoints, problems]; NaN where s solved none."""
    solved = solved_TP.astype(np.float64)
    kept_ST = solved @ solved.T
    size_S1 = solved.sum(axis=1)[:, None]
    return np.divide(size_S1 - kept_ST, size_S1, out=np.full_like(kept_ST, np.nan), where=size_S1 > 0)
