"""Attention over packed token streams, for any transformers model, through transformers' attention interface.

The model is always called on one row, a stream of N tokens without padding; a *plan* says which tokens each of them may
see. Everything outside of attention (all the matrix products with weights) works on the stream and wastes nothing.
`PackedPlan` is for scoring and training: many sequences side by side, where the responses of one group share one copy of
their prompt. The sampling engine has a plan of its own (policy/slots.py) that keeps keys and values between calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from reasonloop.kernels import ops as kernels
from reasonloop.policy import varlen
from reasonloop.policy.masks import own_window

NAME = "reasonloop"


@dataclass(frozen=True)
class Scores:
    """How a layer makes attention scores from queries and keys."""

    scaling: float
    window: int | None = None
    """Sliding window: a query sees the last so many positions, its own included."""
    softcap: float | None = None
    sinks: Tensor | None = None
    """[H]: a score of each head that no value belongs to, in the softmax beside those of the keys"""

    @property
    def causal(self) -> bool:
        """Whether causality is all there is to it"""
        return self.window is None and self.plain

    @property
    def plain(self) -> bool:
        """Whether weights are the softmax of scaled products"""
        return self.softcap is None and self.sinks is None


class Plan(Protocol):
    def attend(self, query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
        """query [N, H, D], key [N, Hkv, D], value [N, Hkv, Dv] of the stream's N tokens -> [N, H, Dv]."""
        ...


def attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    plan: Plan | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function. query [1, H, N, D], key [1, Hkv, N, D], value [1, Hkv, N, Dv] -> [1, N, H, Dv]."""
    if (watch := kwargs.get("watch")) is not None:
        return watch.see(module, query, key, value, attention_mask, sliding_window), None
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = Scores(scaling, sliding_window if plan is None else own_window(module, sliding_window), softcap, s_aux)
    if plan is None and not scores.plain:  # sdpa has neither
        return _by_hand(query, key, value, attention_mask, scores), None
    if plan is None:  # an ordinary call from outside, `generate` for one
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return output, None
    out = plan.attend(query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1), scores)
    return out.unsqueeze(0), None


def _by_hand(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scores: Scores) -> Tensor:
    """Ordinary attention with a soft cap or sinks. mask bool [B or 1, 1, N, Nk], or None: causal -> [B, N, H, D]."""
    batch, _, length, _ = query.shape
    reach = key.shape[2]
    if mask is None:
        mask = torch.ones(length, reach, dtype=torch.bool, device=query.device).tril(reach - length)[None, None]
    mask = mask[:, 0].expand(batch, length, reach)
    return grouped_attention(query.transpose(1, 2).contiguous(), key, value, mask, scores)


AttentionInterface.register(NAME, attention_forward)
AttentionMaskInterface.register(NAME, sdpa_mask)


@lru_cache(maxsize=8)
def mask_is_in_the_plan(device: torch.device) -> Tensor:
    """A four-dimensional mask: it tells transformers that the caller has taken care of masking.

    One a device: a copy to a GPU in every forward pass would wait for it, and can't be captured in a CUDA graph.
    """
    with torch.inference_mode(False):
        return torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)


def grouped_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scores: Scores) -> Tensor:
    """Attention of padded rows, the query heads that share a key head folded into the query length (no copies of keys).

    query [S, Lq, H, D]; key [S, Hkv, Lk, D]; value [S, Hkv, Lk, Dv]; mask bool [S, Lq, Lk], True where it may look
    -> [S, Lq, H, Dv].
    """
    rows, length, heads, dim = query.shape
    kv_heads = key.shape[1]
    share = heads // kv_heads
    folded = query.view(rows, length, kv_heads, share, dim).permute(0, 2, 3, 1, 4)
    folded = folded.reshape(rows, kv_heads, share * length, dim)
    if share > 1 and length > 1:
        mask = mask.repeat(1, share, 1)
    mask = mask.unsqueeze(1)
    # not -inf: a padded query behind a sliding window sees nothing, and a softmax over nothing is NaN, also in backward
    hidden = torch.finfo(query.dtype).min
    if scores.plain:
        bias = torch.zeros(mask.shape, dtype=query.dtype, device=query.device).masked_fill_(~mask, hidden)
        out = F.scaled_dot_product_attention(folded, key, value, attn_mask=bias, scale=scores.scaling)
    else:
        weights = torch.matmul(folded, key.transpose(2, 3)) * scores.scaling
        if scores.softcap is not None:
            weights = torch.tanh(weights / scores.softcap) * scores.softcap
        weights = weights.masked_fill(~mask, hidden)
        if scores.sinks is not None:
            sinks = scores.sinks.view(kv_heads, share, 1).expand(rows, -1, -1, length).reshape(rows, kv_heads, -1, 1)
            weights = torch.cat([weights, sinks.to(weights.dtype)], -1)
        weights = weights.softmax(-1, dtype=torch.float32).to(query.dtype)
        out = torch.matmul(weights[..., : key.shape[2]], value)
    return out.view(rows, kv_heads, share, length, -1).permute(0, 3, 1, 2, 4).reshape(rows, length, heads, -1)


@dataclass(frozen=True)
class Segment:
    """A run of stream tokens [start, start + length) that looks at itself causally, and at all of `context` before it."""

    start: int
    length: int
    context: tuple[tuple[int, int], ...] = ()
    """(start, length) of the segments whose tokens come before this one, in order: a shared prefix, a shared prompt"""

    @property
    def context_length(self) -> int:
        return sum(length for _, length in self.context)


@dataclass(frozen=True)
class _Chunk:
    """Segments of like length, padded to the longest of them."""

    q_index: Tensor
    """int64 [S, Lq] into the stream"""
    kv_index: Tensor
    """int64 [S, Lk]"""
    mask: Tensor
    """bool [S, Lq, Lk]"""
    window_mask: Callable[[int], Tensor]


class PackedPlan:
    """Attention plan of a packed stream: which tokens each token may see.

    Without padding where there is a kernel for that: our own on a CPU, flash attention on a GPU (policy/varlen.py). Else, as
    for soft caps and sinks, the attention of segments of like length is computed together, so that the padding is small.
    """

    CHUNK_SCORES = 4_000_000  # query x key pairs in one chunk; bounds the memory of masks and scores

    def __init__(self, segments: Sequence[Segment], device: torch.device | str = "cpu") -> None:
        self._segments, self._device = segments, device

    @cached_property
    def _spans(self) -> list[tuple[int, int, tuple[tuple[int, int], ...]]]:
        return [(segment.start, segment.length, segment.context) for segment in self._segments]

    @cached_property
    def _tables(self) -> kernels.Segments:
        return kernels.Segments(self._spans)

    @cached_property
    def _flash(self) -> varlen.Tables:
        return varlen.Tables(self._spans, self._device)

    @cached_property
    def _chunks(self) -> tuple[list[_Chunk], Tensor]:
        """Segments of like length side by side, and where each stream token's answer is among theirs."""
        segments, device = self._segments, self._device
        total = sum(segment.length for segment in segments)
        order = sorted(range(len(segments)), key=lambda i: (segments[i].length, segments[i].context_length, i))
        chunks: list[_Chunk] = []
        inverse = torch.zeros(total, dtype=torch.int64)
        offset, first = 0, 0
        while first < len(order):
            last = self._chunk_end(segments, order, first)
            members = [segments[i] for i in order[first:last]]
            chunk, places = self._chunk(members, offset, device)
            for segment, place in zip(members, places, strict=True):
                inverse[segment.start : segment.start + segment.length] = place
            chunks.append(chunk)
            offset += chunk.q_index.numel()
            first = last
        return chunks, inverse.to(device)

    def _chunk_end(self, segments: Sequence[Segment], order: list[int], first: int) -> int:
        shortest = segments[order[first]]
        longest_kv = 0
        for last in range(first, len(order)):
            segment = segments[order[last]]
            longest_kv = max(longest_kv, segment.context_length + segment.length)
            too_big = (last - first + 1) * segment.length * longest_kv > self.CHUNK_SCORES
            too_unlike = segment.length > max(16, 1.25 * shortest.length)
            if last > first and (too_big or too_unlike):
                return last
        return len(order)

    @staticmethod
    def _chunk(members: list[Segment], offset: int, device: torch.device | str) -> tuple[_Chunk, list[Tensor]]:
        longest = max(segment.length for segment in members)
        longest_kv = max(segment.context_length + segment.length for segment in members)
        q_index = torch.zeros(len(members), longest, dtype=torch.int64)
        kv_index = torch.zeros(len(members), longest_kv, dtype=torch.int64)
        places = []
        for row, segment in enumerate(members):
            own = torch.arange(segment.start, segment.start + segment.length)
            q_index[row, : segment.length] = own
            before = segment.context_length
            context = [torch.arange(start, start + length) for start, length in segment.context]
            kv_index[row, : before + segment.length] = torch.cat([*context, own])
            places.append(torch.arange(segment.length) + offset + row * longest)
        # position of query t in its own sequence is context + t, and key positions count from the sequence's start, so
        # that causality alone also hides the padding behind every real token; a padded query sees what it likes
        before_s = torch.tensor([segment.context_length for segment in members])
        q_position = before_s[:, None] + torch.arange(longest)[None, :]
        k_position = torch.arange(longest_kv)
        distance = (q_position[:, :, None] - k_position[None, None, :]).to(device)
        chunk = _Chunk(
            q_index.to(device),
            kv_index.to(device),
            distance >= 0,
            lambda window: (distance >= 0) & (distance < window),
        )
        return chunk, places

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
        width = value.shape[2]
        if query.shape[2] != key.shape[2] or query.shape[1] % key.shape[1] or value.shape[1] != key.shape[1]:
            raise NotImplementedError("its queries or values have other sizes than its keys")
        if width < key.shape[2]:  # kernels have one size
            return PackedPlan.attend(self, query, key, F.pad(value, (0, key.shape[2] - width)), scores)[:, :, :width]
        same = width == key.shape[2]
        if same and scores.causal and kernels.usable(query, key, value):
            return self._tables.attend(query, key, value, scores.scaling)
        if same and scores.plain and varlen.usable(query, key, scores.window):
            return self._flash.attend(query, key, value, scores.scaling, scores.window)
        heads, dim = query.shape[1:]
        kv_heads = key.shape[1]
        chunks, inverse = self._chunks
        query, key, value = (x.reshape(x.shape[0], -1) for x in (query, key, value))  # rows: cheap to gather
        outputs = []
        for chunk in chunks:
            rows, length = chunk.q_index.shape
            q = query.index_select(0, chunk.q_index.view(-1)).view(rows, length, heads, dim)
            kv_shape = (rows, -1, kv_heads, dim)
            k = key.index_select(0, chunk.kv_index.view(-1)).view(kv_shape).transpose(1, 2)
            v = value.index_select(0, chunk.kv_index.view(-1)).view(rows, -1, kv_heads, width).transpose(1, 2)
            mask = chunk.mask if scores.window is None else chunk.window_mask(scores.window)
            out = grouped_attention(q, k, v, mask, scores)
            outputs.append(out.reshape(rows * length, heads * width))
        stacked = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        return stacked.index_select(0, inverse).view(-1, heads, width)
