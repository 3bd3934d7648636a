"""Log-probs and entropies of target tokens from hidden states, without keeping anything of the vocabulary's size.

The distribution is the one that responses are sampled from: temperature, then top-k, top-p and min-p, renormalised. The
sampler and the learner both come here, so that the on-policy ratio is 1 under every sampling setting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from reasonloop.config import Sampling
from reasonloop.kernels import ops as kernels
from reasonloop.kernels.matmul import linear, multiply, right_factor
from reasonloop.policy.shape import CHUNK_ELEMENTS, GPU_CHUNK_ELEMENTS

Linear = Callable[..., Tensor]

HALVES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Head:
    """The last step of a policy: logits = softcap(hidden @ weight.T + bias) * scale, float32."""

    weight: Tensor
    """[V, D]"""
    bias: Tensor | None = None
    """[V]"""
    scale: float = 1.0
    softcap: float | None = None
    project: Linear = linear
    """(hidden, weight, bias) -> hidden @ weight.T + bias"""
    absent: Tensor | None = None
    """int64 [K]: tokens that are never drawn, since the tokenizer has no text for them. They have their share of an
    untruncated distribution, as transformers computes it, and none of a truncated one."""

    def for_chunks(self) -> Head:
        """The same for several products of the weight as it is now; they carry no gradient."""
        if self.project is not linear:
            return self
        times = right_factor(self.weight, turned=True)

        def project(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            return times(hidden) if bias is None else times(hidden).add_(bias)

        return replace(self, project=project)

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [M, D] -> [M, V] float32."""
        if hidden.is_cuda and hidden.dtype in HALVES and self.bias is None:
            # as it was summed, not rounded in between
            logits = torch.mm(hidden, self.weight.t(), out_dtype=torch.float32)
        else:
            logits = self.project(hidden, self.weight, self.bias).float()
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits


@dataclass(frozen=True)
class NoHead:
    """Of a model whose logits come out of its own forward pass: they take the place of the hidden states."""

    absent: Tensor | None = None
    """As in `Head`"""

    def logits(self, hidden: Tensor) -> Tensor:
        """[M, V] -> [M, V] float32, a copy."""
        return hidden.to(torch.float32, copy=True)


def truncation_mask(logits: Tensor, sampling: Sampling) -> Tensor | None:
    """bool [M, V], True for tokens that may be sampled; None where all may. `logits` [M, V] are divided by T already.

    The filters apply one after another, each to what the one before has left: top-k, then top-p, then min-p. Ties at
    the border of top-k are kept. The most likely token is never removed.
    """
    if not sampling.truncated:
        return None
    keep = torch.ones_like(logits, dtype=torch.bool)
    if 0 < sampling.top_k < logits.shape[-1]:
        border = logits.topk(sampling.top_k, dim=-1).values[:, -1:]
        keep = logits >= border
    if sampling.top_p < 1:
        probs = logits.masked_fill(~keep, float("-inf")).softmax(-1)
        ranked, order = probs.sort(dim=-1, descending=True, stable=True)
        before = ranked.cumsum(-1, dtype=torch.float64) - ranked
        keep_ranked = (before < sampling.top_p) & (ranked > 0)
        keep = torch.zeros_like(keep).scatter_(-1, order, keep_ranked)
    if sampling.min_p > 0:
        top = logits.max(-1, keepdim=True).values
        keep = keep & (logits >= top + float(torch.log(torch.tensor(sampling.min_p))))
    return keep


def tempered(logits: Tensor, sampling: Sampling, targets: Tensor | None = None, absent: Tensor | None = None) -> Tensor:
    """Logits of the sampled distribution, [M, V]: divided by the temperature, -inf where truncated. In place.

    Where anything is truncated, the tokens `absent` (int64 [K]) are so before all others. A target token is never truncated:
    it was sampled, so a border that moved by rounding must not give it -inf.
    """
    if sampling.temperature != 1:
        logits = logits.div_(sampling.temperature)
    if absent is not None and sampling.truncated:
        logits = logits.index_fill_(1, absent, float("-inf"))
    keep = truncation_mask(logits, sampling)
    if keep is not None:
        if targets is not None:
            keep.scatter_(1, targets[:, None], True)
        logits = logits.masked_fill_(~keep, float("-inf"))
    return logits


class _TargetLogprobs(torch.autograd.Function):
    """Backward computes the logits of each chunk again instead of keeping [M, V] for it."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, head: Head, sampling: Sampling
    ) -> tuple[Tensor, Tensor]:
        logprobs = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        entropies = torch.empty_like(logprobs)
        ctx.head, ctx.sampling = head, sampling
        head = head.for_chunks()
        sums = logprobs.new_empty(len(targets), 2) if _fused(hidden, weight, head, sampling) else None
        if sums is not None and len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < len(weight):
            raise IndexError(f"targets {int(targets.min())} to {int(targets.max())}: expected 0 to {len(weight) - 1}")
        for part in _chunks(len(targets), weight):
            if sums is not None:
                there = (sums[part], logprobs[part], entropies[part])
                kernels.token_logprobs(head.logits(hidden[part]), targets[part], 1 / sampling.temperature, *there)
                continue
            logits = tempered(head.logits(hidden[part]), sampling, targets[part], head.absent)
            logprobs[part], entropies[part] = _measured(logits, targets[part], sampling.truncated)
        ctx.save_for_backward(hidden, weight, bias, targets, sums)
        ctx.mark_non_differentiable(entropies)
        return logprobs, entropies

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, sums = ctx.saved_tensors
        head, sampling, times_weight = ctx.head.for_chunks(), ctx.sampling, right_factor(weight)
        d_hidden = torch.empty_like(hidden)
        whole = torch.contiguous_format
        d_weight = torch.zeros_like(weight, memory_format=whole) if ctx.needs_input_grad[1] else None
        d_bias = torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[2] else None
        for part in _chunks(len(targets), weight):
            raw, slope = head.logits(hidden[part]), head.scale / sampling.temperature
            if sums is not None:
                kernels.token_gradients(
                    raw, targets[part], 1 / sampling.temperature, sums[part], grads[0][part] * slope
                )
                d_logits = raw
            else:
                d_logits = _gradients(raw, head, sampling, targets[part], grads[0][part] * slope).to(weight.dtype)
            d_hidden[part] = times_weight(d_logits)
            if d_weight is not None:
                multiply(d_logits, hidden[part], a_turned=True, onto=d_weight)
            if d_bias is not None:
                d_bias += d_logits.sum(0)
        return d_hidden, d_weight, d_bias, None, None, None


class _TargetLogits(torch.autograd.Function):
    """The same from the logits themselves, which are kept."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, head: NoHead, sampling: Sampling) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(logits, targets)
        ctx.head, ctx.sampling = head, sampling
        found = _measured(tempered(head.logits(logits), sampling, targets, head.absent), targets, sampling.truncated)
        ctx.mark_non_differentiable(found[1])
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        logits, targets = ctx.saved_tensors
        pulls = grads[0] / ctx.sampling.temperature
        found = _gradients(ctx.head.logits(logits), ctx.head, ctx.sampling, targets, pulls)
        return found.to(logits.dtype), None, None, None


def _fused(hidden: Tensor, weight: Tensor, head: Head, sampling: Sampling) -> bool:
    """Whether our kernels take the logits from here: no truncation, no cap."""
    return head.softcap is None and not sampling.truncated and kernels.usable(hidden, weight)


def _measured(logits: Tensor, targets: Tensor, truncated: bool) -> tuple[Tensor, Tensor]:
    """Log-probs of `targets` [M] and entropies [M] under `tempered` logits [M, V], which are overwritten."""
    total = torch.logsumexp(logits, -1)
    logprobs = logits.gather(1, targets[:, None])[:, 0] - total
    # H = logsumexp - sum p * logit; truncated tokens have p = 0 and contribute nothing
    probs = (logits - total[:, None]).exp_()
    if truncated:
        logits.masked_fill_(probs == 0, 0.0)
    return logprobs, total - probs.mul_(logits).sum(-1)


def _gradients(raw: Tensor, head: Head | NoHead, sampling: Sampling, targets: Tensor, pulls: Tensor) -> Tensor:
    """The gradient by the uncapped logits [M, V] of the sum of pulls [M] times log-probs; `raw` is overwritten."""
    softcap = head.softcap if isinstance(head, Head) else None
    softcap_slope = 1 - (raw / softcap) ** 2 if softcap is not None else None
    d_logits = tempered(raw, sampling, targets, head.absent)
    d_logits = torch.softmax(d_logits, -1).neg_()
    d_logits[torch.arange(len(d_logits), device=d_logits.device), targets] += 1.0
    d_logits *= pulls[:, None]
    if softcap_slope is not None:
        d_logits *= softcap_slope
    return d_logits


def target_logprobs(hidden: Tensor, head: Head | NoHead, targets: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Log-probs of `targets` [M] int64 after hidden states [M, D], and entropies: two float32 [M], nats.

    Both are of the distribution that `sampling` draws from. Entropies carry no gradient. Memory does not grow with
    M x V: logits are made in chunks, and again in the backward pass. On a CPU raises IndexError (or gather's RuntimeError)
    for a target beyond the vocabulary. With logits in the place of hidden states memory does grow.
    """
    if isinstance(head, NoHead):
        return _TargetLogits.apply(hidden, targets, head, sampling)
    return _TargetLogprobs.apply(hidden, head.weight, head.bias, targets, head, sampling)


def _chunks(rows: int, weight: Tensor) -> list[slice]:
    size = max(1, chunk_elements(weight.device) // weight.shape[0])
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def chunk_elements(device: torch.device) -> int:
    """Logits that are held at once."""
    if device.type != "cuda":
        return CHUNK_ELEMENTS
    return min(GPU_CHUNK_ELEMENTS, torch.cuda.get_device_properties(device).total_memory // 128)
