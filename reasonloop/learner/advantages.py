"""Group advantages: rewards of one problem's responses -> one advantage a response."""

from __future__ import annotations

from collections.abc import Callable
from math import comb

import numpy as np

from reasonloop.errors import RunError

EPSILON = 1e-6  # added to the standard deviation, so that a near-constant group doesn't explode


def group_advantages(rewards: np.ndarray, kind: str | Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """float64 [G] -> float64 [G]. `kind` is one of these, or a function of the user's own.

    "grpo": (R - mean) / std with the unbiased (G - 1) standard deviation, DeepSeekMath (arXiv 2402.03300) eq. 3 as
    TRL computes it; "centered": R - mean, Dr. GRPO (arXiv 2503.20783); "rloo": R - mean of the others, RLOO
    (arXiv 2402.14740), which is "centered" times G / (G - 1); "maxrl": (R - mean) / mean, for rewards >= 0; "pass@K":
    Pass@k training (arXiv 2508.10751), for rewards of 0 and 1: see `pass_k_advantages`.
    """
    rewards = np.asarray(rewards, dtype=np.float64)
    if len(rewards) < 2:
        raise ValueError(f"a group of {len(rewards)}: group advantages need at least 2 responses")
    if callable(kind):
        return _own(kind, rewards)
    centered = rewards - rewards.mean()
    if kind == "centered":
        return centered
    if kind == "rloo":
        return centered * (len(rewards) / (len(rewards) - 1))
    if kind == "grpo":
        return centered / (rewards.std(ddof=1) + EPSILON)
    if kind == "maxrl":
        if rewards.min() < 0:
            raise ValueError(f"maxrl advantages need rewards of at least 0, got {rewards.min()}")
        return centered / rewards.mean() if rewards.mean() > 0 else centered
    if kind.startswith("pass@"):
        return pass_k_advantages(rewards, int(kind.removeprefix("pass@")))
    raise ValueError(f"unknown advantage {kind!r}; expected grpo, centered, rloo, maxrl or pass@K")


def _own(function: Callable[[np.ndarray], np.ndarray], rewards: np.ndarray) -> np.ndarray:
    found = np.asarray(function(rewards), dtype=np.float64)
    if found.shape != rewards.shape or not np.isfinite(found).all():
        raise RunError(
            f"rl.advantage: {function.__name__} returned {found.tolist()} for the rewards {rewards.tolist()}; "
            "expected a finite number for each"
        )
    return found


def pass_k_advantages(rewards: np.ndarray, k: int) -> np.ndarray:
    """Analytic advantages of Pass@k training: each response's mean over all k-subsets of the group that it is in.

    With W wrong responses of G, a random k-subset has Rbar = 1 - C(W, k) / C(G, k) and s = sqrt(Rbar (1 - Rbar));
    A_right = (1 - Rbar) / s, A_wrong = (1 - Rbar - C(W-1, k-1) / C(G-1, k-1)) / s. All zero where s is: when every
    subset, or none, holds a right response. Rewards other than 0 and 1, or k > G, raise ValueError.
    """
    group, right = len(rewards), rewards == 1
    if not (right | (rewards == 0)).all() or not 1 <= k <= group:
        raise ValueError(f"pass@K advantages need rewards of 0 and 1 and 1 <= k <= {group}, got k = {k}, {rewards}")
    wrong = group - int(right.sum())
    mean = 1 - comb(wrong, k) / comb(group, k)
    spread = (mean * (1 - mean)) ** 0.5
    if spread == 0:
        return np.zeros(group)
    without_right = comb(wrong - 1, k - 1) / comb(group - 1, k - 1)
    return np.where(right, 1 - mean, 1 - mean - without_right) / spread
