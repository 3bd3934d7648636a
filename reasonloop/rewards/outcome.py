"""The outcome reward of RL with verifiable rewards, and the penalties that may stand beside it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from reasonloop.errors import InputError, RunError
from reasonloop.own import load_own
from reasonloop.records import Group, Problem, Rollout, sampled_sum

OwnReward = Callable[[Problem, Rollout], float]


def outcome_reward(
    rollout: Rollout, max_tokens: int, overlong_buffer: int = 0, outcome: float | None = None
) -> Rollout:
    """The rollout with R = outcome + soft overlong penalty, and both in `reward_parts`. `outcome`: unset, the verifier's
    (`Rollout.outcome`)."""
    parts = {"outcome": rollout.outcome if outcome is None else outcome}
    if overlong_buffer:
        parts["overlong"] = overlong_penalty(rollout.length, max_tokens, overlong_buffer)
    return replace(rollout, reward=sum(parts.values()), reward_parts=parts)


def own_reward(target: str | OwnReward) -> OwnReward:
    """The function of the user's own that `rl.reward` names, or that is given: (problem, judged rollout) -> a finite number.

    Raises InputError where there is none; what it returns raises RunError where it is no number.
    """
    expected = "'outcome', or a function of (problem, rollout)"
    function: Any = load_own(target, f"rl.reward = {target!r}", expected) if isinstance(target, str) else target
    target = target if isinstance(target, str) else getattr(target, "__name__", repr(target))
    if not callable(function):
        raise InputError(f"rl.reward = {target!r}: a {type(function).__name__}; expected {expected}")

    def reward(problem: Problem, rollout: Rollout) -> float:
        value = function(problem, rollout)
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise RunError(
                f"rl.reward = {target!r}: returned {value!r} for problem {problem.id}; expected a finite number"
            )
        return number

    return reward


def with_kl_penalty(group: Group, kl_coef: float) -> Group:
    """The group with kl_coef x (k1 estimate of the KL to the reference, summed over tokens) taken off each reward.

    k1 = log pi_behaviour - log pi_reference at the tokens that the policy sampled, nats.
    """
    penalised = []
    for rollout, logprobs in zip(group.rollouts, group.reference or (), strict=True):
        penalty = -kl_coef * sampled_sum(rollout.logprobs.astype(np.float64) - logprobs, rollout.sampled)
        parts = {**rollout.reward_parts, "kl": penalty}
        penalised.append(replace(rollout, reward=rollout.reward + penalty, reward_parts=parts))
    return replace(group, rollouts=tuple(penalised))


def overlong_penalty(length: int, max_tokens: int, buffer: int) -> float:
    """DAPO's soft overlong penalty (arXiv 2503.14476 eq. 13), in [-1, 0]: falls over the last `buffer` tokens."""
    if buffer <= 0:
        return 0.0
    return max(-1.0, min(0.0, -(length - (max_tokens - buffer)) / buffer))
