"""The outcome reward of RL with verifiable rewards, and the penalties that may stand beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from reasonloop.records import Rollout


def outcome_reward(rollout: Rollout, max_tokens: int, overlong_buffer: int = 0) -> Rollout:
    """The rollout with R = 1[right] + soft overlong penalty, and both in `reward_parts`."""
    parts = {"outcome": float(rollout.right)}
    if overlong_buffer:
        parts["overlong"] = overlong_penalty(len(rollout.response_tokens), max_tokens, overlong_buffer)
    return replace(rollout, reward=sum(parts.values()), reward_parts=parts)


def with_kl_penalty(rollouts: Sequence[Rollout], reference: Sequence[np.ndarray], kl_coef: float) -> list[Rollout]:
    """The rollouts with kl_coef x (k1 estimate of the KL to the reference, summed over tokens) taken off the reward.

    k1 = log pi_behaviour - log pi_reference at the sampled tokens: float32 [T] each, nats.
    """
    penalised = []
    for rollout, logprobs in zip(rollouts, reference, strict=True):
        penalty = -kl_coef * float(np.sum(rollout.logprobs.astype(np.float64) - logprobs))
        parts = {**rollout.reward_parts, "kl": penalty}
        penalised.append(replace(rollout, reward=rollout.reward + penalty, reward_parts=parts))
    return penalised


def overlong_penalty(length: int, max_tokens: int, buffer: int) -> float:
    """DAPO's soft overlong penalty (arXiv 2503.14476 eq. 13), in [-1, 0]: falls over the last `buffer` tokens."""
    if buffer <= 0:
        return 0.0
    return max(-1.0, min(0.0, -(length - (max_tokens - buffer)) / buffer))
