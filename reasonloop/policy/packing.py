"""Packing prompts and responses into one token stream: every prompt once, every response behind it, no padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reasonloop.policy.attention import PackedPlan, Segment


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

    def split(self, values: np.ndarray) -> list[np.ndarray]:
        """[M] -> one array a response."""
        return np.split(values, np.cumsum(self.lengths)[:-1])


def pack(prompts: Sequence[np.ndarray], responses: Sequence[np.ndarray], device: torch.device | str = "cpu") -> Stream:
    """One stream of the given pairs, int32 token arrays. Equal prompts are laid down once and shared.

    A response's last token predicts nothing, so that it is a target and not in the stream.
    """
    tokens: list[np.ndarray] = []
    positions: list[np.ndarray] = []
    segments: list[Segment] = []
    predict_from: list[np.ndarray] = []
    prompt_at: dict[bytes, tuple[int, int]] = {}
    end = 0

    def lay(ids: np.ndarray, first_position: int, context: tuple[int, int] | None) -> int:
        nonlocal end
        tokens.append(ids)
        positions.append(np.arange(first_position, first_position + len(ids)))
        segments.append(Segment(end, len(ids), context))
        end += len(ids)
        return end - len(ids)

    for prompt, response in zip(prompts, responses, strict=True):
        key = prompt.tobytes()
        if key not in prompt_at:
            prompt_at[key] = (lay(prompt, 0, None), len(prompt))
        start, length = prompt_at[key]
        first = np.array([start + length - 1])
        if len(response) == 0:
            raise ValueError("a response without tokens: there is nothing to predict")
        if len(response) > 1:
            own = lay(response[:-1], length, prompt_at[key])
            predict_from.append(np.concatenate([first, np.arange(own, own + len(response) - 1)]))
        else:
            predict_from.append(first)

    def tensor(arrays: Sequence[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.concatenate(arrays).astype(np.int64)).to(device)

    return Stream(
        tensor(tokens),
        tensor(positions),
        PackedPlan(segments, device),
        tensor(predict_from),
        tensor(responses),
        tuple(len(response) for response in responses),
    )


def split_by_tokens(prompts: Sequence[np.ndarray], responses: Sequence[np.ndarray], limit: int) -> list[list[int]]:
    """Indices of the pairs in streams of at most `limit` tokens (a single longer pair has a stream of its own).

    Pairs with the same prompt stay next to each other where they fit, so that the prompt is computed once.
    """
    first_seen: dict[bytes, int] = {}
    for i, prompt in enumerate(prompts):
        first_seen.setdefault(prompt.tobytes(), i)
    order = sorted(range(len(prompts)), key=lambda i: (first_seen[prompts[i].tobytes()], i))
    parts: list[list[int]] = []
    used, current = 0, -1
    for i in order:
        group = first_seen[prompts[i].tobytes()]
        cost = len(responses[i]) - 1 + (len(prompts[i]) if group != current else 0)
        if not parts or used + cost > limit:
            parts.append([])
            used, cost = 0, len(responses[i]) - 1 + len(prompts[i])
        parts[-1].append(i)
        used, current = used + cost, group
    return parts
