"""Keys and values of responses in flight: static buffers, a slot a response, and the attention plans that use them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from reasonloop.policy.attention import PackedPlan, Scores, Segment, grouped_attention


class PrefillPlan(PackedPlan):
    """A packed plan over prompts that keeps the keys and values of every call, [N, Hkv, D] of the whole stream."""

    def __init__(self, segments: Sequence[Segment], device: torch.device) -> None:
        super().__init__(segments, device)
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.grouped = False
        """Whether several query heads share a key head"""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
        # copies: they may be parts of larger tensors, which would stay with them
        self.keys.append(key.clone())
        self.values.append(value.clone())
        self.grouped = query.shape[1] > key.shape[1]
        return super().attend(query, key, value, scores)


class SlotCache:
    """Keys and values of up to `slots` responses of up to `length` tokens (prompt included), a buffer for each call of
    attention in a forward pass: one a layer, more where a layer attends twice or runs again.

    Active responses always fill the slots 0..B-1, so that a decoding step works on views of the buffers: nothing is
    concatenated, and no computation is spent on a finished response. It is the plan of the decoding steps.

    Values lie as [slots, Hkv, length, D]. So do keys, but for several query heads a key head on a CPU: there they lie
    transposed, [slots, Hkv, D, length], as the product with the queries reads them; with `transposed` always.
    """

    def __init__(self, slots: int, length: int, device: torch.device, transposed: bool = False) -> None:
        self.slots, self.length, self.device, self.transposed = slots, length, device, transposed
        self.keys: list[Tensor] = []
        """By call; always seen as [slots, Hkv, length, D]"""
        self.values: list[Tensor] = []
        self._rows = torch.arange(slots, device=device)
        self._columns = torch.arange(length, device=device)
        self._positions = torch.empty(0)
        self._reach = self._call = 0
        self._bias = torch.empty(0)

    @property
    def held(self) -> int:
        """Bytes of all buffers"""
        return sum(buffer.nbytes for buffer in (*self.keys, *self.values))

    def admit(self, prefill: PrefillPlan, stream: Tensor, slots: Tensor, positions: Tensor) -> None:
        """Copies prompt tokens into slots: for each i, stream token stream[i] goes to (slots[i], positions[i])."""
        for call, key in enumerate(prefill.keys):
            if call == len(self.keys):
                heads, dim = key.shape[1:]
                new = partial(torch.zeros, dtype=key.dtype, device=self.device)
                transposed = self.transposed or (prefill.grouped and self.device.type == "cpu")
                self.keys.append(
                    new(self.slots, heads, dim, self.length).transpose(2, 3)
                    if transposed
                    else new(self.slots, heads, self.length, dim)
                )
                self.values.append(new(self.slots, heads, self.length, prefill.values[call].shape[2]))
            self.keys[call][slots, :, positions] = key[stream]
            self.values[call][slots, :, positions] = prefill.values[call][stream]

    def move(self, sources: Sequence[int], targets: Sequence[int], reach: int) -> None:
        """Compaction: responses in the `sources` slots go to the `targets` slots (first `reach` positions)."""
        for buffer in (*self.keys, *self.values):
            used = buffer[:, :, :reach]
            for source, target in zip(sources, targets, strict=True):
                used[target].copy_(used[source])

    def decode_at(self, positions: Tensor, reach: int) -> None:
        """The next forward pass decodes one token in each of the slots 0..B-1, at int64 [B] positions below `reach`."""
        self._positions, self._reach, self._call = positions, reach, 0
        visible = self._columns[None, : self._reach] <= positions[:, None]
        bias = torch.zeros(visible.shape, dtype=self.keys[0].dtype, device=self.device)
        self._bias = bias.masked_fill_(~visible, float("-inf"))[:, None, None, :]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
        rows, heads, dim = query.shape
        keys, values = self.keys[self._call], self.values[self._call]
        self._call += 1
        keys[self._rows[:rows], :, self._positions] = key
        values[self._rows[:rows], :, self._positions] = value
        keys, values = keys[:rows, :, : self._reach], values[:rows, :, : self._reach]
        if scores.causal:
            folded = query.reshape(rows, keys.shape[1], -1, dim)
            if keys.is_cuda:
                out = F.scaled_dot_product_attention(folded, keys, values, attn_mask=self._bias, scale=scores.scaling)
            else:  # one query a row: two matrix products beat the CPU's fused kernel, by up to 1.28
                weights = torch.matmul(folded, keys.transpose(2, 3))
                if scores.scaling != 1.0:
                    weights.mul_(scores.scaling)
                out = torch.matmul(weights.add_(self._bias).softmax(-1), values)
            return out.reshape(rows, heads, -1)
        distance = self._positions[:, None] - self._columns[None, : self._reach]
        visible = (distance >= 0) & (distance < (scores.window or self.length))
        return grouped_attention(query[:, None], keys, values, visible[:, None], scores)[:, 0]
