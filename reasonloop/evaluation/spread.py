"""Temporal sampling (arXiv 2505.20196): k samples spread evenly over an arm's policies on the way, against k of its last.

It costs nothing beside evaluations that are there, and says whether an arm's diversity is in its weights or in its history.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonloop.evaluation.bootstrap import FEWEST, interval, over_seeds, resampled_means
from reasonloop.evaluation.metrics import from_mask, mean_interval, pass_at_k, spread_pass_at_k


def rights_of(problems: Sequence[Mapping[str, Any]]) -> NDArray[np.bool_] | None:
    """Which samples an evaluation's `problems` say are right, [problems, samples], by problem's id; None where they don't
    (an earlier version's), or have unequal samples. KeyError, TypeError or ValueError for what is no such list."""
    rows = sorted((str(p["id"]), int(p["n"]), str(p.get("right", ""))) for p in problems)
    samples = {n for _, n, _ in rows}
    if len(samples) != 1 or not all(mask for *_, mask in rows):
        return None
    return np.array([from_mask(mask, max(samples)) for *_, mask in rows], dtype=bool)


def spread(rights: Sequence[NDArray[np.bool_]], k: int) -> dict[str, Any] | None:
    """Of each seed which samples of each policy on the way are right, [policies, problems, samples]; the last policy is the
    arm's own. None where there are fewer than two policies, or fewer than k samples, or than policies to spread.

    "avg": the mean over all of them; "pass": pass@k of the spread samples with its interval; "difference": that less pass@k
    of the last policy alone, with "ci95" over seeds and problems.
    """
    policies, problems, samples = rights[0].shape
    if not 2 <= policies <= k <= samples or problems < FEWEST:
        return None
    spread_SP = np.array([spread_pass_at_k(own, k) for own in rights])
    alone_SP = np.array([pass_at_k(samples, own[-1].sum(axis=1), k) for own in rights])
    drawn = resampled_means(np.concatenate([spread_SP, alone_SP]))
    lo, hi = interval(over_seeds(drawn[: len(rights)]) - over_seeds(drawn[len(rights) :]))
    return {
        "policies": policies,
        "avg": float(np.mean(rights)),
        "pass": {"value": float(spread_SP.mean()), "ci95": list(mean_interval(spread_SP))},
        "difference": float(spread_SP.mean() - alone_SP.mean()),
        "ci95": [lo, hi],
        "sign": int(lo > 0) - int(hi < 0),
    }
