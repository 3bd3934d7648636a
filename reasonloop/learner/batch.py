"""The learner's batch: responses with token weights. SFT, RFT and RL differ only in how they fill it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from reasonloop.learner.advantages import group_advantages
from reasonloop.learner.losses import Objective, TokenTargets
from reasonloop.records import Rollout


@dataclass(frozen=True)
class Example:
    """One response behind its prompt, and what the loss does with its tokens."""

    prompt: np.ndarray
    """int32 [P]"""
    response: np.ndarray
    """int32 [T]"""
    policy_weight: float = 0.0
    """Weight of every token in each term, normaliser included"""
    ce_weight: float = 0.0
    kl_weight: float = 0.0
    value_weight: float = 0.0
    advantage: float | np.ndarray = 0.0
    """One for all tokens, or float [T]"""
    behaviour: np.ndarray | None = None
    """float32 [T], behaviour log-probs (RL)"""
    reference: np.ndarray | None = None
    """float32 [T], reference log-probs (KL in the loss)"""
    returns: np.ndarray | None = None
    """float [T], the critic's targets (PPO)"""
    old_values: np.ndarray | None = None
    """float [T], the critic's values when the rollouts were made (PPO)"""


def supervised(pairs: Sequence[tuple[np.ndarray, np.ndarray]], weights: Sequence[float] | None = None) -> list[Example]:
    """One update's batch of cross entropy: -mean over all response tokens of log pi, times each response's weight."""
    total = sum(len(response) for _, response in pairs)
    weights = weights if weights is not None else [1.0] * len(pairs)
    return [
        Example(prompt, response, ce_weight=weight / total)
        for (prompt, response), weight in zip(pairs, weights, strict=True)
    ]


def useful_groups(groups: Sequence[Sequence[Rollout]], objective: Objective | None = None) -> list[Sequence[Rollout]]:
    """The groups that have a gradient: those whose rewards are not all equal (DAPO's dynamic sampling).

    A KL penalty inside the reward doesn't count: it differs for every response, and group advantages would blow its
    differences up to the size of right and wrong. With a critic every group has a gradient; with pass_k advantages
    those have none in which every k-subset holds a right response.
    """
    objective = objective or Objective()
    if objective.advantage == "gae":
        return list(groups)
    useful = [group for group in groups if len({round(reward_without_kl(r), 9) for r in group}) > 1]
    if objective.advantage == "pass_k":
        useful = [group for group in useful if _advantages(group, objective).any()]
    return useful


def reward_without_kl(rollout: Rollout) -> float:
    return rollout.reward - rollout.reward_parts["kl"] if "kl" in rollout.reward_parts else rollout.reward


def _advantages(group: Sequence[Rollout], objective: Objective) -> np.ndarray:
    return group_advantages(np.array([r.reward for r in group]), objective.advantage, objective.pass_k)


def reinforced(
    groups: Sequence[Sequence[Rollout]], objective: Objective, max_tokens: int, planned: float | None = None
) -> list[Example]:
    """One update's batch of policy gradient from groups of rollouts, advantages within each group; the rest as
    `policy_gradient`."""
    advantages = [advantage for group in groups for advantage in _advantages(group, objective).tolist()]
    return policy_gradient(
        [rollout for group in groups for rollout in group], advantages, objective, max_tokens, planned
    )


def policy_gradient(
    rollouts: Sequence[Rollout],
    advantages: Sequence[float | np.ndarray],
    objective: Objective,
    max_tokens: int,
    planned: float | None = None,
) -> list[Example]:
    """One update's batch of policy gradient: rollouts with an advantage each, or one for each of their tokens [T].

    `planned`: the responses that an update has when no group is left out (unset: those given). "constant" aggregation
    divides by it, so that a group's weight doesn't depend on how many others had no gradient (Dr. GRPO).
    """
    tokens = sum(len(rollout.response_tokens) for rollout in rollouts)
    weights = {
        "token": lambda length: 1.0 / tokens,
        "sequence": lambda length: 1.0 / (len(rollouts) * length),
        "constant": lambda length: 1.0 / ((planned or len(rollouts)) * max_tokens),
    }[objective.aggregation]
    return [
        Example(
            rollout.prompt_tokens,
            rollout.response_tokens,
            policy_weight=weights(len(rollout.response_tokens)),
            advantage=advantage,
            behaviour=rollout.logprobs,
        )
        for rollout, advantage in zip(rollouts, advantages, strict=True)
    ]


def with_values(
    examples: Sequence[Example], returns: Sequence[np.ndarray], old_values: Sequence[np.ndarray], coefficient: float
) -> list[Example]:
    """Adds the value term, `coefficient` times its mean over all tokens of the update. [T] arrays, one an example."""
    weight = coefficient / sum(len(example.response) for example in examples)
    return [
        replace(example, returns=target, old_values=old, value_weight=weight)
        for example, target, old in zip(examples, returns, old_values, strict=True)
    ]


def with_reference(examples: Sequence[Example], reference: Sequence[np.ndarray], kl_coef: float) -> list[Example]:
    """Adds the KL term: kl_coef times the k3 estimate, aggregated like the policy term."""
    return [
        replace(example, reference=logprobs, kl_weight=kl_coef * example.policy_weight)
        for example, logprobs in zip(examples, reference, strict=True)
    ]


def token_targets(examples: Sequence[Example], device: torch.device | str) -> TokenTargets:
    """The loss's view of a micro-batch: one row of weights a target token, in the order of `packing.pack`."""
    lengths = np.array([len(example.response) for example in examples])

    def spread(values: list[float]) -> torch.Tensor:
        return torch.from_numpy(np.repeat(np.asarray(values, dtype=np.float32), lengths)).to(device)

    def stack(arrays: list[np.ndarray | None]) -> torch.Tensor:
        filled = [
            np.zeros(length, np.float32) if array is None else array.astype(np.float32)
            for array, length in zip(arrays, lengths, strict=True)
        ]
        return torch.from_numpy(np.concatenate(filled)).to(device)

    return TokenTargets(
        sequence=torch.from_numpy(np.repeat(np.arange(len(examples)), lengths)).to(device),
        advantage=stack([_per_token(example) for example in examples]),
        behaviour=stack([example.behaviour for example in examples]),
        reference=stack([example.reference for example in examples]),
        policy_weight=spread([example.policy_weight for example in examples]),
        ce_weight=spread([example.ce_weight for example in examples]),
        kl_weight=spread([example.kl_weight for example in examples]),
        returns=stack([example.returns for example in examples]),
        old_values=stack([example.old_values for example in examples]),
        value_weight=spread([example.value_weight for example in examples]),
    )


def _per_token(example: Example) -> np.ndarray:
    return np.broadcast_to(np.asarray(example.advantage, dtype=np.float32), len(example.response))
