"""The loss: policy gradient + cross entropy + KL + value, each a weighted sum over tokens.

The token weights carry aggregation and normaliser (they are fixed for the whole update before any forward pass), so that
the loss of an update is the sum over its micro-batches, however it is cut.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from reasonloop.config import Rl
from reasonloop.errors import InputError
from reasonloop.own import load_own

VALUE_CLIP = 0.2  # the value loss doesn't reward moving further than this from the old value (PPO's)

GroupAdvantage = Callable[[np.ndarray], np.ndarray]
Surrogate = Callable[[Tensor, Tensor, "TokenTargets"], Tensor]
"""(log-probs, log of the ratios, targets) -> the loss of each token, to be minimised: all [M]"""


@dataclass(frozen=True)
class Objective:
    """One RL objective, taken apart."""

    advantage: str | GroupAdvantage = "grpo"
    """gae: per token, from a critic (PPO); else one for a response, from its group: grpo, centered, rloo, maxrl, pass@K,
    or a function of a group's rewards, float64 [G] -> float64 [G]."""
    aggregation: Literal["token", "sequence", "constant"] = "token"
    """token: mean over all tokens of the update (DAPO); sequence: mean over a response's tokens, then over responses
    (GRPO); constant: sum over tokens divided by responses x max_tokens (Dr. GRPO)."""
    ratio: Literal["token", "sequence"] = "token"
    """sequence: one ratio a response, the geometric mean of its token ratios (GSPO, arXiv 2507.18071)."""
    surrogate: str | Surrogate = "clip"
    """clip: PPO's min(rho A, clip(rho) A); cispo: sg(clip(rho)) A log pi (CISPO, arXiv 2506.13585); or a function as
    `Surrogate` has it."""
    clip_low: float = 0.2
    clip_high: float = 0.2
    importance_clip: float = 2.0
    """Most that pi_proximal / pi_behaviour counts, where the engine's numbers differ from the learner's."""


OBJECTIVES = {
    "dapo": Objective(clip_high=0.28),
    "grpo": Objective(aggregation="sequence"),
    "dr_grpo": Objective(advantage="centered", aggregation="constant"),
    "rloo": Objective(advantage="rloo"),
    "gspo": Objective(aggregation="sequence", ratio="sequence", clip_low=3e-4, clip_high=4e-4),
    "cispo": Objective(surrogate="cispo", clip_high=0.28),
    "ppo": Objective(advantage="gae"),
}


def objective_of(options: Rl, given: Objective | None = None, own_advantage: GroupAdvantage | None = None) -> Objective:
    """The objective that the recipe names (or the one `given`), with the recipe's own parts where it sets some (or
    `own_advantage`).

    Of the user's own: `rl.objective` as `module:name` of an `Objective`, or of a function as `Surrogate`; `rl.advantage` of
    a function of a group's rewards. Raises InputError where there is no such thing.
    """
    named: Any = given or OBJECTIVES.get(options.objective)
    if named is None:
        where, expected = f"rl.objective = {options.objective!r}", "an Objective or a surrogate function"
        found = load_own(options.objective, where, expected)
        if not isinstance(found, Objective) and not callable(found):
            raise InputError(f"{where}: a {type(found).__name__}; expected {expected}")
        named = found if isinstance(found, Objective) else Objective(surrogate=found)
    advantage: Any = own_advantage or options.advantage or named.advantage
    if isinstance(advantage, str) and ":" in advantage:
        advantage = load_own(advantage, f"rl.advantage = {advantage!r}", "a function of a group's rewards")
    return replace(
        named,
        clip_low=options.clip_low or named.clip_low,  # a clip of 0 is refused, so that unset is the only other case
        clip_high=options.clip_high or named.clip_high,
        advantage=advantage,
    )


@dataclass(frozen=True)
class TokenTargets:
    """What the loss needs of M target tokens; all [M], float32 unless said otherwise."""

    sequence: Tensor
    """int64: which response of the micro-batch a token belongs to"""
    sampled: Tensor | None
    """bool: which of them the policy sampled; the others have no weight in any term. None: all"""
    advantage: Tensor
    behaviour: Tensor
    """Behaviour log-probs"""
    proximal: Tensor
    """What the importance ratio is to: the behaviour log-probs, or the learner's own before its first update"""
    reference: Tensor
    """Reference log-probs for the KL term"""
    policy_weight: Tensor
    """Weights of the terms, normaliser included; zero where a term doesn't apply"""
    ce_weight: Tensor
    kl_weight: Tensor
    returns: Tensor
    """What the critic should have said"""
    old_values: Tensor
    """What it said when the rollouts were made"""
    value_weight: Tensor


@dataclass(frozen=True)
class Loss:
    """The loss to differentiate and what to report. Sums over tokens, to be added over micro-batches."""

    total: Tensor
    clipped: Tensor
    """Tokens whose ratio was outside of the clip range on the side where clipping cuts the gradient"""
    k1: Tensor
    """Sum of behaviour - current log-probs: the KL that the update's earlier steps have made"""
    apart: Tensor
    """Sum of their differences' sizes, which don't cancel one another"""
    kl: Tensor
    """Sum of the k3 estimates to the reference, over tokens with a KL weight"""
    value: Tensor
    """The value term, part of the total"""


def loss(logprobs: Tensor, targets: TokenTargets, objective: Objective, values: Tensor | None = None) -> Loss:
    """The whole loss of a micro-batch from current log-probs [M] (and a critic's values [M])."""
    term, clipped = policy_loss(logprobs, logprobs - targets.proximal, targets, objective)
    zero = torch.zeros((), dtype=logprobs.dtype, device=logprobs.device)
    total = (term * targets.policy_weight).sum() - (logprobs * targets.ce_weight).sum()
    kl = k3(logprobs, targets.reference)
    value = zero
    if values is not None:
        value = (value_loss(values, targets.old_values, targets.returns) * targets.value_weight).sum()
    total = total + (kl * targets.kl_weight).sum() + value
    in_policy = targets.policy_weight > 0
    since = torch.where(in_policy, targets.behaviour - logprobs, zero).detach()
    return Loss(
        total,
        (clipped & in_policy).sum().detach(),
        since.sum(),
        since.abs().sum(),
        torch.where(targets.kl_weight > 0, kl, zero).sum().detach(),
        value.detach(),
    )


def policy_loss(
    logprobs: Tensor, log_ratio: Tensor, targets: TokenTargets, objective: Objective
) -> tuple[Tensor, Tensor]:
    """Per-token policy-gradient loss [M], to be minimised, and which tokens the clip silences, bool [M]."""
    if objective.ratio == "sequence":
        count = int(targets.sequence.max()) + 1 if len(targets.sequence) else 0
        sums = torch.zeros(count, dtype=log_ratio.dtype, device=log_ratio.device)
        counted = torch.ones_like(log_ratio) if targets.sampled is None else targets.sampled.to(log_ratio.dtype)
        lengths = sums.index_add(0, targets.sequence, counted)
        means = sums.index_add(0, targets.sequence, log_ratio * counted) / lengths
        log_ratio = means[targets.sequence]
    # exp of a huge difference is inf, and inf * 0 weight is NaN: bound it far outside of any clip range
    ratio = torch.exp(log_ratio.clamp(-20.0, 20.0))
    bounded = ratio.clamp(1 - objective.clip_low, 1 + objective.clip_high)
    advantage = targets.advantage
    cut = ((ratio > 1 + objective.clip_high) & (advantage > 0)) | ((ratio < 1 - objective.clip_low) & (advantage < 0))
    if callable(objective.surrogate):
        own = objective.surrogate(logprobs, log_ratio, targets)
        if not isinstance(own, Tensor) or own.shape != logprobs.shape:
            got = f"of shape {[*own.shape]}" if isinstance(own, Tensor) else f"a {type(own).__name__}"
            raise InputError(f"the objective's function gave {got}; expected each token's loss, {[*logprobs.shape]}")
        return own, cut
    if objective.surrogate == "cispo":
        return -bounded.detach() * advantage * logprobs, cut
    return -torch.minimum(ratio * advantage, bounded * advantage), cut


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Schulman's k3 estimate of KL(policy || reference) at sampled tokens: exp(d) - d - 1 with d = ref - current; >= 0."""
    difference = (reference - logprobs).clamp(-20.0, 20.0)
    return torch.expm1(difference) - difference  # exp(d) - 1 would cancel where the policies are close


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float = VALUE_CLIP) -> Tensor:
    """PPO's clipped value loss, per token: 0.5 max((v - R)^2, (clip(v, old +- clip) - R)^2)."""
    near_old = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (near_old - returns) ** 2)
