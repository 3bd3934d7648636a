"""The learner's batch: responses with a row of columns for each token. SFT, RFT and RL differ only in how they fill them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from reasonloop.learner.estimates import Estimate, advantages_of
from reasonloop.learner.losses import Objective, TokenTargets
from reasonloop.policy.transfer import sent
from reasonloop.records import Group, Rollout


@dataclass(frozen=True)
class Example:
    """One response behind its prompt, and what the loss does with its tokens: columns of [T], zeros where they are None."""

    prompt: np.ndarray
    """int32 [P]"""
    response: np.ndarray
    """int32 [T]"""
    sampled: np.ndarray | None = None
    """bool [T]: the tokens that the loss is about; the others are context, whatever the columns say. None: all."""
    policy_weight: np.ndarray | None = None
    """Weight of each token in each term, normaliser included"""
    ce_weight: np.ndarray | None = None
    kl_weight: np.ndarray | None = None
    value_weight: np.ndarray | None = None
    advantage: np.ndarray | None = None
    behaviour: np.ndarray | None = None
    """Behaviour log-probs (RL)"""
    proximal: np.ndarray | None = None
    """Log-probs of the learner's own weights before its first update (RL with an engine whose numbers differ from the
    learner's); None: the behaviour log-probs"""
    reference: np.ndarray | None = None
    """Reference log-probs (KL in the loss)"""
    returns: np.ndarray | None = None
    """The critic's targets (PPO)"""
    old_values: np.ndarray | None = None
    """The critic's values when the rollouts were made (PPO)"""

    @property
    def length(self) -> int:
        """Tokens that the loss is about"""
        return len(self.response) if self.sampled is None else int(self.sampled.sum())

    def column(self, value: float) -> np.ndarray:
        """float64 [T]: one value for all tokens that the loss is about"""
        return np.where(True if self.sampled is None else self.sampled, value, np.zeros(len(self.response)))


def _example(rollout: Rollout) -> Example:
    return Example(rollout.prompt_tokens, rollout.response_tokens, rollout.sampled, behaviour=rollout.logprobs)


def supervised(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    weights: Sequence[float] | None = None,
    sampled: Sequence[np.ndarray | None] | None = None,
) -> list[Example]:
    """One update's batch of cross entropy: -mean over all response tokens of log pi, times each response's weight.

    `pairs`: (prompt, response), int32 each. `sampled`: for each response which of its tokens count, bool [T], None for all.
    """
    masks = sampled if sampled is not None else [None] * len(pairs)
    examples = [Example(*pair, mask) for pair, mask in zip(pairs, masks, strict=True)]
    total = sum(example.length for example in examples)
    weights = weights if weights is not None else [1.0] * len(pairs)
    return [
        replace(example, ce_weight=example.column(weight / total))
        for example, weight in zip(examples, weights, strict=True)
    ]


def useful_groups(groups: Sequence[Group], objective: Objective | None = None) -> list[Group]:
    """The groups that have a gradient: those whose rewards are not all equal (DAPO's dynamic sampling).

    A KL penalty inside the reward doesn't count: it differs for every response, and group advantages would blow its
    differences up to the size of right and wrong. With a critic every group has a gradient; with pass@K advantages
    those have none in which every k-subset holds a right response.
    """
    objective = objective or Objective()
    if objective.advantage == "gae":
        return list(groups)
    useful = [group for group in groups if len({round(r.reward_without_kl, 9) for r in group.rollouts}) > 1]
    if isinstance(objective.advantage, str) and objective.advantage.startswith("pass@"):
        useful = [group for group in useful if advantages_of(group, objective).any()]
    return useful


def reinforced(
    groups: Sequence[Group], objective: Objective, max_tokens: int, planned: float | None = None
) -> list[Example]:
    """One update's batch of policy gradient from groups of rollouts, advantages within each group; the rest as
    `policy_gradient`."""
    advantages = [advantage for group in groups for advantage in advantages_of(group, objective).tolist()]
    return policy_gradient([r for group in groups for r in group.rollouts], advantages, objective, max_tokens, planned)


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
    tokens = sum(rollout.length for rollout in rollouts)
    weights = {
        "token": lambda length: 1.0 / tokens,
        "sequence": lambda length: 1.0 / (len(rollouts) * length),
        "constant": lambda length: 1.0 / ((planned or len(rollouts)) * max_tokens),
    }[objective.aggregation]
    examples = [_example(rollout) for rollout in rollouts]
    return [
        replace(
            example,
            policy_weight=example.column(weights(example.length)),
            advantage=advantage if isinstance(advantage, np.ndarray) else example.column(advantage),
        )
        for example, advantage in zip(examples, advantages, strict=True)
    ]


def estimated(
    groups: Sequence[Group],
    estimates: Sequence[Sequence[Estimate]],
    objective: Objective,
    max_tokens: int,
    planned: float,
) -> list[Example]:
    """One update's batch of policy gradient, and of the value term where the estimates are a critic's, from groups and the
    estimates of their rollouts; the rest as `policy_gradient` and `with_values`."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    flat = [estimate for own in estimates for estimate in own]
    examples = policy_gradient(rollouts, [estimate.advantage for estimate in flat], objective, max_tokens, planned)
    returns = [estimate.returns for estimate in flat if estimate.returns is not None]
    values = [estimate.values for estimate in flat if estimate.values is not None]
    return with_values(examples, returns, values) if returns else examples


def with_values(
    examples: Sequence[Example], returns: Sequence[np.ndarray], old_values: Sequence[np.ndarray]
) -> list[Example]:
    """Adds the value term, its mean over all tokens of the update. [T] arrays, one an example."""
    weight = 1 / sum(example.length for example in examples)
    return [
        replace(example, returns=target, old_values=old, value_weight=example.column(weight))
        for example, target, old in zip(examples, returns, old_values, strict=True)
    ]


def with_reference(examples: Sequence[Example], reference: Sequence[np.ndarray], kl_coef: float) -> list[Example]:
    """Adds the KL term: kl_coef times the k3 estimate, aggregated like the policy term."""
    return [
        replace(example, reference=logprobs, kl_weight=kl_coef * example.policy_weight)
        for example, logprobs in zip(examples, reference, strict=True)
        if example.policy_weight is not None
    ]


def with_proximal(examples: Sequence[Example], proximal: Sequence[np.ndarray]) -> list[Example]:
    """Adds what the learner's own weights gave before the first update, float32 [T] each: the ratio is to them, and the
    truncated pi_proximal / pi_behaviour is a factor without gradient."""
    return [replace(example, proximal=logprobs) for example, logprobs in zip(examples, proximal, strict=True)]


def importance(behaviour: np.ndarray, proximal: np.ndarray, clip: float) -> np.ndarray:
    """min(pi_proximal / pi_behaviour, clip) of each token, float64 [T]: truncated importance sampling."""
    return np.exp(np.minimum(np.subtract(proximal, behaviour, dtype=np.float64), np.log(clip)))


def effective_share(weights: np.ndarray) -> float:
    """Effective sample size of importance weights as a share of their number: (sum w)^2 / (n sum w^2), in (0, 1]."""
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / (len(weights) * squares) if squares > 0 else 0.0


def token_targets(
    examples: Sequence[Example], device: torch.device | str, importance_clip: float = 2.0
) -> TokenTargets:
    """The loss's view of a micro-batch: one row of columns a target token, in the order of `stream.pack`.

    Where an example has proximal log-probs its policy weights carry their truncated importance.
    """
    lengths = np.array([len(example.response) for example in examples])

    def stack(columns: list[np.ndarray | None], dtype: Any = np.float32) -> torch.Tensor:
        filled = [
            np.zeros(length, dtype) if column is None else column.astype(dtype)
            for column, length in zip(columns, lengths, strict=True)
        ]
        return sent(np.concatenate(filled), device)

    masked = any(example.sampled is not None for example in examples)
    return TokenTargets(
        sequence=sent(np.repeat(np.arange(len(examples)), lengths), device),
        sampled=stack([example.column(1.0) for example in examples], np.bool_) if masked else None,
        advantage=stack([example.advantage for example in examples]),
        behaviour=stack([example.behaviour for example in examples]),
        proximal=stack([e.behaviour if e.proximal is None else e.proximal for e in examples]),
        reference=stack([example.reference for example in examples]),
        policy_weight=stack([_policy_weight(example, importance_clip) for example in examples]),
        ce_weight=stack([example.ce_weight for example in examples]),
        kl_weight=stack([example.kl_weight for example in examples]),
        returns=stack([example.returns for example in examples]),
        old_values=stack([example.old_values for example in examples]),
        value_weight=stack([example.value_weight for example in examples]),
    )


def _policy_weight(example: Example, clip: float) -> np.ndarray | None:
    if example.proximal is None or example.behaviour is None or example.policy_weight is None:
        return example.policy_weight
    return example.policy_weight * importance(example.behaviour, example.proximal, clip)
