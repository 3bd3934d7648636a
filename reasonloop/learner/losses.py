"""The loss: policy gradient + cross entropy + KL + value, each a weighted sum over tokens.

The token weights carry aggregation and normaliser (they are fixed for the whole update before any forward pass), so that
the loss of an update is the sum over its micro-batches, however it is cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Objective:
    """One RL objective, taken apart."""

    advantage: Literal["grpo", "centered", "rloo", "maxrl", "pass_k", "gae"] = "grpo"
    """gae: per token, from a critic (PPO); the others: one for a response, from its group."""
    pass_k: int = 8
    """The k of pass_k advantages."""
    aggregation: Literal["token", "sequence", "constant"] = "token"
    """token: mean over all tokens of the update (DAPO); sequence: mean over a response's tokens, then over responses
    (GRPO); constant: sum over tokens divided by responses x max_tokens (Dr. GRPO)."""
    ratio: Literal["token", "sequence"] = "token"
    """sequence: one ratio a response, the geometric mean of its token ratios (GSPO, arXiv 2507.18071)."""
    surrogate: Literal["clip", "cispo"] = "clip"
    """clip: PPO's min(rho A, clip(rho) A); cispo: sg(clip(rho)) A log pi (CISPO, arXiv 2506.13585)."""
    clip_low: float = 0.2
    clip_high: float = 0.2


OBJECTIVES = {
    "dapo": Objective(clip_high=0.28),
    "grpo": Objective(aggregation="sequence"),
    "dr_grpo": Objective(advantage="centered", aggregation="constant"),
    "rloo": Objective(advantage="rloo"),
    "gspo": Objective(aggregation="sequence", ratio="sequence", clip_low=3e-4, clip_high=4e-4),
    "cispo": Objective(surrogate="cispo", clip_high=0.28),
    "ppo": Objective(advantage="gae"),
}


@dataclass(frozen=True)
class TokenTargets:
    """What the loss needs of M target tokens; all [M], float32 unless said otherwise."""

    sequence: Tensor
    """int64: which response of the micro-batch a token belongs to"""
    advantage: Tensor
    behaviour: Tensor
    """Behaviour log-probs"""
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
    kl: Tensor
    """Sum of the k3 estimates to the reference, over tokens with a KL weight"""
    value: Tensor
    """The value term, part of the total"""


def loss(
    logprobs: Tensor, targets: TokenTargets, objective: Objective, values: Tensor | None = None, value_clip: float = 0.2
) -> Loss:
    """The whole loss of a micro-batch from current log-probs [M] (and a critic's values [M])."""
    log_ratio = logprobs - targets.behaviour
    term, clipped = policy_loss(logprobs, log_ratio, targets, objective)
    zero = torch.zeros((), dtype=logprobs.dtype, device=logprobs.device)
    total = (term * targets.policy_weight).sum() - (logprobs * targets.ce_weight).sum()
    kl = k3(logprobs, targets.reference)
    value = zero
    if values is not None:
        value = (value_loss(values, targets.old_values, targets.returns, value_clip) * targets.value_weight).sum()
    total = total + (kl * targets.kl_weight).sum() + value
    in_policy = targets.policy_weight > 0
    return Loss(
        total,
        (clipped & in_policy).sum().detach(),
        torch.where(in_policy, -log_ratio, zero).sum().detach(),
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
        lengths = sums.index_add(0, targets.sequence, torch.ones_like(log_ratio))
        means = sums.index_add(0, targets.sequence, log_ratio) / lengths
        log_ratio = means[targets.sequence]
    # exp of a huge difference is inf, and inf * 0 weight is NaN: bound it far outside of any clip range
    ratio = torch.exp(log_ratio.clamp(-20.0, 20.0))
    bounded = ratio.clamp(1 - objective.clip_low, 1 + objective.clip_high)
    advantage = targets.advantage
    cut = ((ratio > 1 + objective.clip_high) & (advantage > 0)) | ((ratio < 1 - objective.clip_low) & (advantage < 0))
    if objective.surrogate == "cispo":
        return -bounded.detach() * advantage * logprobs, cut
    return -torch.minimum(ratio * advantage, bounded * advantage), cut


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Schulman's k3 estimate of KL(policy || reference) at sampled tokens: exp(d) - d - 1 with d = ref - current; >= 0."""
    difference = (reference - logprobs).clamp(-20.0, 20.0)
    return torch.expm1(difference) - difference  # exp(d) - 1 would cancel where the policies are close


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float) -> Tensor:
    """PPO's clipped value loss, per token: 0.5 max((v - R)^2, (clip(v, old +- clip) - R)^2)."""
    near_old = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (near_old - returns) ** 2)
