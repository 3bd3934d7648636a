"""Attention of packed streams by flash attention on a GPU (torch's `varlen_attn`): one call a layer, without padding.

Flash attention aligns its causal mask to the bottom right: where a sequence has more keys than queries, query t of Lq sees
the keys up to Lk - Lq + t, and so the last query all of them. That is a segment behind its context: queries are its own
tokens, keys those of its context and then its own. The keys of a shared prompt are repeated for every segment behind it, by
one gather; all other work stays shared.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reasonloop.policy.transfer import sent

Spans = Sequence[tuple[int, int, Sequence[tuple[int, int]]]]
"""(start, length, context) of segments, one after another, context as (start, length) each"""

LARGEST_HEAD = 256
TOLERANCE = 2e-2
"""Most that its numbers may differ from plain attention's in float32, of the largest: half precision has 8 or 11 bits"""


class Tables:
    """Where the keys of each segment are, on the device."""

    def __init__(self, segments: Spans, device: torch.device | str) -> None:
        """Raises ValueError where the segments don't follow one another."""
        own, index, places, tokens = [], [], [], []
        ends: list[tuple[int, int]] = [(0, 0)]
        for start, length, context in segments:
            if start != ends[-1][0]:
                raise ValueError(f"a segment starts at {start}; expected {ends[-1][0]}, where the one before ends")
            seen = [np.arange(first, first + count) for first, count in context]
            before = sum(map(len, seen))
            first_key = ends[-1][1]
            index += [*seen, np.arange(start, start + length)]
            places.append(np.arange(first_key, first_key + before))
            tokens += seen
            own.append(np.arange(first_key + before, first_key + before + length))
            ends.append((start + length, first_key + before + length))
        columns = [*zip(*ends, strict=True), *map(_joined, (index, own, places, tokens))]
        parts = sent(_joined(columns), device).split([len(column) for column in columns])
        self.q_ends, self.k_ends = (part.to(torch.int32) for part in parts[:2])
        """int32 [S + 1]: where each segment's queries and keys end, behind a zero"""
        self.index, self.own, self.places, self.tokens = parts[2:]
        """int64: the stream token of each key [K]; the key that each stream token is itself [N]; the keys that are repeated,
        and the stream tokens that they are [C]"""
        lengths = np.diff(np.array(ends), axis=0)
        self.most_queries, self.most_keys = (int(most) for most in lengths.max(0))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None) -> Tensor:
        """query [N, H, D], key and value [N, Hkv, D] -> [N, H, D]. See `usable`."""
        if len(self.places):
            key, value = (_Gathered.apply(x, self.index, self.own, self.places, self.tokens) for x in (key, value))
        return attention(
            *(query, key, value, self.q_ends, self.k_ends, self.most_queries, self.most_keys),
            scale=scaling,
            window_size=(-1 if window is None else window - 1, 0),
        )


def _joined(arrays: Sequence[Any]) -> np.ndarray:
    return np.concatenate([np.empty(0, np.int64), *arrays], dtype=np.int64)


class _Gathered(torch.autograd.Function):
    """rows [N, ..], int64 [K] -> [K, ..]. Gradients of repeated rows are summed in float32: of a shared prompt there are as
    many as its group has responses."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, own: Tensor, places: Tensor, tokens: Tensor) -> Tensor:
        ctx.save_for_backward(own, places, tokens)
        return rows.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        own, places, tokens = ctx.saved_tensors
        (gathered,) = grads
        summed = gathered.index_select(0, own).float()
        summed.index_add_(0, tokens, gathered.index_select(0, places).float())
        return summed.to(gathered.dtype), None, None, None, None


def attention(query: Tensor, key: Tensor, value: Tensor, *ends: Any, **options: Any) -> Tensor:
    """torch's `varlen_attn`, whichever of its versions is there: torch 2.11 takes fewer key heads without being told."""
    from torch.nn.attention.varlen import varlen_attn

    if query.shape[1] != key.shape[1] and "enable_gqa" in inspect.signature(varlen_attn).parameters:
        options["enable_gqa"] = True
    found: Any = varlen_attn(query, key, value, *ends, **options)
    return found


def usable(query: Tensor, key: Tensor, window: int | None) -> bool:
    """Whether these can be attended to here: in half precision on a GPU, heads of a size that flash attention has, and it
    computes what plain attention does (looked at once)."""
    heads, dim = query.shape[1:]
    if not query.is_cuda or query.dtype not in (torch.bfloat16, torch.float16) or dim % 8 or dim > LARGEST_HEAD:
        return False
    return sound(query.device, query.dtype, heads, key.shape[1], dim, window is not None)


@lru_cache(maxsize=32)
def sound(device: torch.device, dtype: torch.dtype, heads: int, kv_heads: int, dim: int, windowed: bool) -> bool:
    """Whether attention and its gradients are those of plain attention, with a shared prompt and without. Warns if not."""
    try:
        difference = disagreement(device, dtype, heads, kv_heads, dim, 5 if windowed else None)
        reason = f"its numbers differ by {difference:.2g} (relative)" if not difference < TOLERANCE else ""
    except torch.OutOfMemoryError:  # says nothing of attention
        raise
    except (RuntimeError, TypeError, ValueError) as error:  # an older GPU, a build without it, another signature
        reason = str(error).partition("\n")[0]
    if reason:
        warnings.warn(f"flash attention is not used here ({reason}): attention in padded chunks, slower", stacklevel=2)
    return not reason


def disagreement(
    device: torch.device, dtype: torch.dtype, heads: int, kv_heads: int, dim: int, window: int | None
) -> float:
    """The largest difference of outputs and gradients from plain attention's, of the largest of each."""
    segments: Spans = [(0, 4, ()), (4, 9, ((0, 4),)), (13, 5, ((0, 4), (4, 9))), (18, 1, ((0, 4), (4, 9))), (19, 7, ())]
    total = segments[-1][0] + segments[-1][1]
    rng = np.random.default_rng(0)
    with torch.inference_mode(False), torch.enable_grad():
        drawn = [rng.standard_normal((total, count, dim), np.float32) for count in (heads, kv_heads, kv_heads, heads)]
        query, key, value, pull = (torch.from_numpy(array).to(device, dtype) for array in drawn)
        ours = query.requires_grad_(), key.requires_grad_(), value.requires_grad_()
        theirs = [x.detach().float().requires_grad_() for x in ours]
        out = Tables(segments, device).attend(query, key, value, dim**-0.5, window)
        expected = _plainly(segments, theirs[0], theirs[1], theirs[2], dim**-0.5, window)
        got = [out, *torch.autograd.grad(out, ours, pull)]
        wanted = [expected, *torch.autograd.grad(expected, theirs, pull.float())]
        pairs = [(one.detach().float(), two.detach()) for one, two in zip(got, wanted, strict=True)]
        differences = [(one - two).abs().max() / two.abs().max().clamp(min=1e-2) for one, two in pairs]
        return float(torch.stack(differences).max().nan_to_num(torch.inf))


def _plainly(segments: Spans, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None) -> Tensor:
    """The same attention as matrix products with a mask over the whole stream."""
    place = np.zeros(len(query), np.int64)
    visible = np.zeros((len(query), len(query)), bool)
    for start, length, context in segments:
        before = sum(count for _, count in context)
        place[start : start + length] = before + np.arange(length)
        for first, count in (*context, (start, length)):
            visible[start : start + length, first : first + count] = True
    distance = place[:, None] - place[None, :]
    visible &= (distance >= 0) & (distance < (window or len(query)))
    share = query.shape[1] // key.shape[1]
    keys, values = (x.repeat_interleave(share, 1) for x in (key, value))
    scores = torch.einsum("qhd,khd->hqk", query, keys) * scaling
    scores = scores.masked_fill(~torch.from_numpy(visible).to(query.device), -torch.inf)
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), values)
