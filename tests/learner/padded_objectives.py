"""The published objectives in the padded [B, T] form of TRL's GRPOTrainer, written from the definitions in float64.

Checked against TRL's `_compute_loss` and advantage code of 2026 (after pull request 6024). Where ReasonLoop and TRL say
different things, this file says what ReasonLoop means, and these are the differences:

- std: TRL divides by (unbiased std + 1e-4), ReasonLoop by (unbiased std + 1e-6). For binary rewards the advantages differ
  by less than 4e-4 relatively; `group_advantages` here takes the epsilon, so that TRL's own is tested too.
- dapo, cispo: the normaliser is the number of response tokens of the whole update, over all micro-batches and processes
  (TRL's `num_items_in_batch`, since 6024 that of one optimizer update also when a generation batch feeds several).
- bnpo is dapo in a single micro-batch; ReasonLoop has no separate name for it.
- grpo and dr_grpo: TRL averages micro-batch means of equal size; here the mean is over the update's responses.
- dr_grpo: TRL divides by B * max_completion_length, and its std is switched off (`scale_rewards="none"`).
- cispo: TRL clips the ratio at an absolute `epsilon_high` from above only (ScaleRL's form). ReasonLoop keeps the
  paper's clip(rho, 1 - low, 1 + high); TRL's epsilon_high = 1 + high, and low >= 1 leaves the lower side open.
- gspo: `importance_sampling_level="sequence"` with loss_type "grpo"; the per-sequence loss [B, 1] is broadcast over the
  mask, so that its mean over tokens is itself.
- KL: k3 per token, added with weight beta before the aggregation (so it carries the policy term's normaliser); TRL has no
  clamp in the exponent, ReasonLoop clamps at 20.
"""

from __future__ import annotations

import torch
from torch import Tensor


def group_advantages(rewards_BG: Tensor, scale: str, epsilon: float = 1e-6) -> Tensor:
    """[problems, G] -> [problems, G]; scale: "group" (GRPO, DAPO), "none" (Dr. GRPO), "leave_one_out" (RLOO)."""
    size = rewards_BG.shape[1]
    if scale == "leave_one_out":
        rows = []
        for i in range(size):
            others = [j for j in range(size) if j != i]
            rows.append(rewards_BG[:, i] - rewards_BG[:, others].mean(1))
        return torch.stack(rows, 1)
    centered = rewards_BG - rewards_BG.mean(1, keepdim=True)
    if scale == "none":
        return centered
    deviation = torch.sqrt((centered**2).sum(1, keepdim=True) / (size - 1))
    return centered / (deviation + epsilon)


def padded_loss(
    logprobs: Tensor,
    old: Tensor,
    mask: Tensor,
    advantages: Tensor,
    loss_type: str,
    low: float,
    high: float,
    level: str = "token",
    reference: Tensor | None = None,
    beta: float = 0.0,
    max_completion_length: int = 0,
) -> Tensor:
    """logprobs, old, reference, mask [B, T]; advantages [B] -> scalar."""
    log_ratio = logprobs - old
    if level == "sequence":
        log_ratio = ((log_ratio * mask).sum(-1) / mask.sum(-1))[:, None]
    ratio = torch.exp(log_ratio)
    clipped = torch.clamp(ratio, 1 - low, 1 + high)
    advantage = advantages[:, None]
    if loss_type == "cispo":
        per_token_loss = -clipped.detach() * advantage * logprobs
    else:
        per_token_loss = -torch.min(ratio * advantage, clipped * advantage)
    if beta:
        assert reference is not None
        gap = reference - logprobs
        per_token_loss = per_token_loss + beta * (torch.exp(gap) - gap - 1)
    per_token_loss = per_token_loss.expand_as(mask)
    if loss_type == "grpo":
        return ((per_token_loss * mask).sum(-1) / mask.sum(-1)).mean()
    if loss_type == "dr_grpo":
        return (per_token_loss * mask).sum() / (len(mask) * max_completion_length)
    assert loss_type in ("dapo", "cispo")
    return (per_token_loss * mask).sum() / mask.sum()
