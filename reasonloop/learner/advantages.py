"""Group advantages: rewards of one problem's responses -> one advantage a response."""

from __future__ import annotations

from math import comb

import numpy as np

EPSILON = 1e-6  # added to the standard deviation, so that a near-constant group doesn't explode


def group_advantages(rewards: np.ndarray, kind: str, k: int = 8) -> np.ndarray:
    """float64 [G] -> float64 [G].

    "grpo": (R - mean) / std with the unbiased (G - 1) standard deviation, DeepSeekMath (arXiv 2402.03300) eq. 3 as
    TRL computes it; "centered": R - mean, Dr. GRPO (arXiv 2503.20783); "rloo": R - mean of the others, RLOO
    (arXiv 2402.14740), which is "centered" times G / (G - 1); "maxrl": (R - mean) / mean, for rewards >= 0; "pass_k":
    Pass@k training (arXiv 2508.10751), for rewards of 0 and 1: see `pass_k_advantages`.
    """
    rewards = np.asarray(rewards, dtype=np.float64)
    if len(rewards) < 2:
        raise ValueError(f"a group of {len(rewards)}: group advantages need at least 2 responses")
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
    if kind == "pass_k":
        return pass_k_advantages(rewards, k)
    raise ValueError(f"unknown advantage {kind!r}; expected grpo, centered, rloo, maxrl or pass_k")


def pass_k_advantages(rewards: np.ndarray, k: int) -> np.ndarray:
    """Analytic advantages of Pass@k training: each response's mean over all k-subsets of the group that it is in.

    With W wrong responses of G, a random k-subset has Rbar = 1 - C(W, k) / C(G, k) and s = sqrt(Rbar (1 - Rbar));
    A_right = (1 - Rbar) / s, A_wrong = (1 - Rbar - C(W-1, k-1) / C(G-1, k-1)) / s. All zero where s is: when every
    subset, or none, holds a right response. Rewards other than 0 and 1, or k > G, raise ValueError.
    """
    group, right = len(rewards), rewards == 1
    if not (right | (rewards == 0)).all() or not 1 <= k <= group:
        raise ValueError(f"pass_k advantages need rewards of 0 and 1 and 1 <= k <= {group}, got k = {k}, {rewards}")
    wrong = group - int(right.sum())
    mean = 1 - comb(wrong, k) / comb(group, k)
    spread = (mean * (1 - mean)) ** 0.5
    if spread == 0:
        return np.zeros(group)
    without_right = comb(wrong - 1, k - 1) / comb(group - 1, k - 1)
    return np.where(right, 1 - mean, 1 - mean - without_right) / spread
