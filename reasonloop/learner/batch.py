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
    advantage: float = 0.0
    behaviour: np.ndarray | None = None
    """float32 [T], behaviour log-probs (RL)"""
    reference: np.ndarray | None = None
    """float32 [T], reference log-probs (KL in the loss)"""


def supervised(pairs: Sequence[tuple[np.ndarray, np.ndarray]], weights: Sequence[float] | None = None) -> list[Example]:
    """One update's batch of cross entropy: -mean over all response tokens of log pi, times each response's weight."""
    total = sum(len(response) for _, response in pairs)
    weights = weights if weights is not None else [1.0] * len(pairs)
    return [
        Example(prompt, response, ce_weight=weight / total)
        for (prompt, response), weight in zip(pairs, weights, strict=True)
    ]


def useful_groups(groups: Sequence[Sequence[Rollout]]) -> list[Sequence[Rollout]]:
    """The groups that have a gradient: those whose rewards are not all equal (DAPO's dynamic sampling).

    A KL penalty inside the reward doesn't count: it differs for every response, and group advantages would blow its
    differences up to the size of right and wrong.
    """
    return [group for group in groups if len({_without_kl(rollout) for rollout in group}) > 1]


def _without_kl(rollout: Rollout) -> float:
    if "kl" not in rollout.reward_parts:
        return rollout.reward
    return sum(value for name, value in rollout.reward_parts.items() if name != "kl")


def reinforced(groups: Sequence[Sequence[Rollout]], objective: Objective, max_tokens: int) -> list[Example]:
    """One update's batch of policy gradient from groups of rollouts, advantages within each group."""
    responses = [rollout for group in groups for rollout in group]
    tokens = sum(len(rollout.response_tokens) for rollout in responses)
    examples = []
    for group in groups:
        advantages = group_advantages(np.array([rollout.reward for rollout in group]), objective.advantage)
        for rollout, advantage in zip(group, advantages.tolist(), strict=True):
            weight = {
                "token": 1.0 / tokens,
                "sequence": 1.0 / (len(responses) * len(rollout.response_tokens)),
                "constant": 1.0 / (len(responses) * max_tokens),
            }[objective.aggregation]
            examples.append(
                Example(
                    rollout.prompt_tokens,
                    rollout.response_tokens,
                    policy_weight=weight,
                    advantage=advantage,
                    behaviour=rollout.logprobs,
                )
            )
    return examples


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
        advantage=spread([example.advantage for example in examples]),
        behaviour=stack([example.behaviour for example in examples]),
        reference=stack([example.reference for example in examples]),
        policy_weight=spread([example.policy_weight for example in examples]),
        ce_weight=spread([example.ce_weight for example in examples]),
        kl_weight=spread([example.kl_weight for example in examples]),
    )
