"""Packing prompts and responses into one token stream: every prompt once, every response behind it, no padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reasonloop.policy.attention import PackedPlan, Segment
from reasonloop.policy.rotary import STEADY, Rope
from reasonloop.policy.transfer import sent


@dataclass(frozen=True)
class Packing:
    """What may stand in one stream."""

    shared: bool = True
    """Whether equal prompts are computed once; else each counts"""
    rope: Rope = STEADY
    """What turns short sequences and long ones by other angles gives them streams of their own"""

    def is_long(self, prompt: np.ndarray, response: np.ndarray) -> bool:
        return self.rope.is_long(len(prompt) + len(response) - 1)  # the last token predicts nothing


TOGETHER = Packing()
"""Whatever there is"""
SHORTEST_PREFIX = 8  # a shorter common beginning is not worth a segment of its own

Spans = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Stream:
    """A packed stream of N tokens that predicts M target tokens: the responses' tokens, one response after another."""

    tokens: Tensor
    """int64 [N]"""
    positions: Tensor
    """int64 [N], each token's place in its own sequence"""
    plan: PackedPlan
    predict_from: Tensor
    """int64 [M]: the stream token whose hidden state predicts each target"""
    targets: Tensor
    """int64 [M]"""
    lengths: tuple[int, ...]
    """Response lengths; they sum to M"""
    sequences: tuple[Spans, ...]
    """Where each pair's tokens are in the stream, the response's last one left out: (start, length) of each part"""

    def split(self, values: np.ndarray) -> list[np.ndarray]:
        """[M] -> one array a response."""
        return np.split(values, np.cumsum(self.lengths)[:-1])


def common_prefix(prompts: Sequence[np.ndarray]) -> int:
    """How many first tokens all prompts share and leave each at least one of its own; 0 where sharing isn't worth it.

    Few-shot examples, instructions and system prompts are computed once this way for all problems, not once for each.
    """
    distinct = {prompt.tobytes(): prompt for prompt in prompts}
    if len(distinct) < 2:
        return 0
    shortest = min(len(prompt) for prompt in distinct.values()) - 1
    first = next(iter(distinct.values()))[:shortest]
    same = np.ones(shortest, dtype=bool)
    for prompt in distinct.values():
        same &= prompt[:shortest] == first
    length = shortest if same.all() else int(same.argmin())
    return length if length >= SHORTEST_PREFIX else 0


class Layout:
    """A packed stream in the making."""

    def __init__(self) -> None:
        self.segments: list[Segment] = []
        self._tokens: list[np.ndarray] = []
        self._positions: list[np.ndarray] = []
        self._end = 0

    def lay(self, ids: np.ndarray, context: Spans = ()) -> tuple[int, int]:
        """Appends tokens that follow those in `context`; returns where they are: (start, length)."""
        segment = Segment(self._end, len(ids), context)
        self._tokens.append(ids)
        self._positions.append(np.arange(segment.context_length, segment.context_length + len(ids)))
        self.segments.append(segment)
        self._end += len(ids)
        return segment.start, segment.length

    def lay_prompts(self, prompts: Sequence[np.ndarray]) -> list[Spans]:
        """Appends each distinct prompt once, behind one copy of what all of them begin with; where each one's tokens are."""
        shared = common_prefix(prompts)
        prefix = (self.lay(prompts[0][:shared]),) if shared else ()
        where: dict[bytes, Spans] = {}
        for prompt in prompts:
            if prompt.tobytes() not in where:
                where[prompt.tobytes()] = (*prefix, self.lay(prompt[shared:], prefix))
        return [where[prompt.tobytes()] for prompt in prompts]

    def tokens(self, device: torch.device | str) -> Tensor:
        """int64 [N]"""
        return _tensor(self._tokens, device)

    def positions(self, device: torch.device | str) -> Tensor:
        """int64 [N]"""
        return _tensor(self._positions, device)


def pack(prompts: Sequence[np.ndarray], responses: Sequence[np.ndarray], device: torch.device | str = "cpu") -> Stream:
    """One stream of the given pairs, int32 token arrays. Equal prompts are laid down once and shared.

    A response's last token predicts nothing, so that it is a target and not in the stream.
    """
    if any(len(response) == 0 for response in responses):
        raise ValueError("a response without tokens: there is nothing to predict")
    layout = Layout()
    predict_from: list[np.ndarray] = []
    sequences: list[Spans] = []
    for spans, response in zip(layout.lay_prompts(prompts), responses, strict=True):
        start, length = spans[-1]
        predict_from.append(np.array([start + length - 1]))
        if len(response) > 1:
            own, length = layout.lay(response[:-1], spans)
            predict_from.append(np.arange(own, own + length))
            spans = (*spans, (own, length))
        sequences.append(spans)
    return Stream(
        layout.tokens(device),
        layout.positions(device),
        PackedPlan(layout.segments, device),
        _tensor(predict_from, device),
        _tensor(responses, device),
        tuple(len(response) for response in responses),
        tuple(sequences),
    )


def _tensor(arrays: Sequence[np.ndarray], device: torch.device | str) -> Tensor:
    return sent(np.concatenate(arrays).astype(np.int64), device)


def split_by_tokens(
    prompts: Sequence[np.ndarray], responses: Sequence[np.ndarray], limit: int, packing: Packing = TOGETHER
) -> list[list[int]]:
    """Indices of the pairs in streams of at most `limit` tokens (a single longer pair has a stream of its own).

    Pairs with the same prompt stay next to each other where they fit, so that the prompt is computed once.
    """
    first_seen: dict[bytes, int] = {}
    for i, prompt in enumerate(prompts):
        first_seen.setdefault(prompt.tobytes(), i)
    long = list(map(packing.is_long, prompts, responses))
    order = sorted(range(len(prompts)), key=lambda i: (long[i], first_seen[prompts[i].tobytes()], i))
    parts: list[list[int]] = []
    used, current, prefix = 0, -1, common_prefix(prompts) if packing.shared else 0
    for i in order:
        group = first_seen[prompts[i].tobytes()]
        cost = len(responses[i]) - 1 + (len(prompts[i]) - prefix if group != current or not packing.shared else 0)
        if not parts or used + cost > limit or long[i] != long[parts[-1][-1]]:
            parts.append([])
            used, cost = 0, len(responses[i]) - 1 + len(prompts[i])
        parts[-1].append(i)
        used, current = used + cost, group
    return parts


def in_streams(
    prompts: Sequence[np.ndarray],
    responses: Sequence[np.ndarray],
    limit: int,
    device: torch.device | str,
    compute: Callable[[Stream], Tensor],
    packing: Packing = TOGETHER,
) -> list[np.ndarray]:
    """What `compute` gives for each response's tokens, float32 [T] each, from streams of at most `limit` tokens; no
    gradient. `compute`: a stream -> [M]."""
    found: list[np.ndarray] = [np.empty(0, np.float32)] * len(prompts)
    for members in split_by_tokens(prompts, responses, limit, packing):
        stream = pack([prompts[i] for i in members], [responses[i] for i in members], device)
        with torch.inference_mode():
            values = compute(stream).cpu().numpy()
        for i, part in zip(members, stream.split(values), strict=True):
            found[i] = part
    return found
