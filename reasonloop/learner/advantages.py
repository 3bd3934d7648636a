"""Group advantages (METHODS section 3): rewards of one problem's responses -> one advantage a response."""

from __future__ import annotations

import numpy as np

EPSILON = 1e-6  # added to the standard deviation, so that a near-constant group doesn't explode


def group_advantages(rewards: np.ndarray, kind: str) -> np.ndarray:
    """float64 [G] -> float64 [G].

    "grpo": (R - mean) / std with the unbiased (G - 1) standard deviation, DeepSeekMath (arXiv 2402.03300) eq. 3 as
    TRL computes it; "centered": R - mean, Dr. GRPO (arXiv 2503.20783); "rloo": R - mean of the others, RLOO
    (arXiv 2402.14740), which is "centered" times G / (G - 1).
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
    raise ValueError(f"unknown advantage {kind!r}; expected grpo, centered or rloo")


def overlong_penalty(length: int, max_tokens: int, buffer: int) -> float:
    """DAPO's soft overlong penalty (arXiv 2503.14476 eq. 13), in [-1, 0]: falls over the last `buffer` tokens."""
    if buffer <= 0:
        return 0.0
    return max(-1.0, min(0.0, -(length - (max_tokens - buffer)) / buffer))
