"""One decoding step for the responses in flight: a plain forward pass, or on a GPU the replay of a captured one.

A small step of a large model is thousands of GPU operations of microseconds each, and starting them one by one from Python
takes longer than they do. A CUDA graph starts them all at once. It is bound to its shapes, so that rows and reach are
rounded up to powers of two, and a shape is captured only when it has come up often enough to pay for that.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reasonloop.engine.kernel_forward import KernelForward
from reasonloop.engine.slots import SlotCache
from reasonloop.engine.straight import StraightForward
from reasonloop.policy.attention import Plan
from reasonloop.policy.policy import Policy

WORTH = 8
"""Steps of one shape before it is captured: that takes about as long as so many plain steps"""
LEAST_REACH = 128

Forward = Callable[[], Tensor]
Capture = Callable[[Forward], tuple[Callable[[], None], Tensor]]
"""A forward pass -> what does it again on the same tensors, and the tensor that its result appears in"""


def cuda_graph(forward: Forward) -> tuple[Callable[[], None], Tensor]:
    """Captures a forward pass whose inputs and caches stay where they are."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        forward()  # libraries set up their workspaces at the first call, which can't be captured
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = forward()
    return graph.replay, result


@dataclass
class _Captured:
    tokens: Tensor
    """int64 [rows], read by the replay; so are the positions"""
    positions: Tensor
    replay: Callable[[], None]
    hidden: Tensor
    """[rows, D], written by the replay"""


class Decoder:
    """Decodes one token in each of the cache's slots 0..B-1. `capture`: how, where not every step is a plain one.
    `kernels`: what does it instead, if there is one for this model and machine."""

    def __init__(
        self, policy: Policy, cache: SlotCache, capture: Capture | None, kernels: KernelForward | None = None
    ) -> None:
        self.policy, self.cache, self.capture, self._kernels = policy, cache, capture, kernels
        self._steps: Counter[tuple[int, int]] = Counter()
        self._captured: dict[tuple[int, int], _Captured] = {}
        self._straight = kernels or (StraightForward.of(policy) if capture is None else None)

    def step(self, tokens: np.ndarray, positions: np.ndarray) -> Tensor:
        """Final hidden states [B, D] of int64 [B] tokens at int64 [B] positions. Overwritten by the next step."""
        if self._kernels is not None:
            return self._kernels.step(tokens, positions, self.cache)
        rows, reach = len(tokens), int(positions.max()) + 1
        device = self.cache.device
        tokens_B, positions_B = torch.from_numpy(tokens).to(device), torch.from_numpy(positions).to(device)
        if self.capture is None:
            return self._forward(tokens_B, positions_B, reach)
        shape = (
            min(_power_of_two(rows), self.cache.slots),
            min(_power_of_two(max(reach, LEAST_REACH)), self.cache.length),
        )
        self._steps[shape] += 1
        if self._steps[shape] < WORTH:
            return self._forward(tokens_B, positions_B, reach)
        if shape not in self._captured:
            try:
                self._captured[shape] = self._capture(shape, tokens_B, positions_B)
            except RuntimeError as error:  # a model that asks the GPU something in its forward pass, or no memory
                reason = str(error).partition("\n")[0]
                warnings.warn(f"decoding steps can't be captured ({reason}): plain steps instead", stacklevel=2)
                self.capture = None
                return self._forward(tokens_B, positions_B, reach)
        found = self._captured[shape]
        found.tokens[:rows].copy_(tokens_B)
        found.positions[:rows].copy_(positions_B)
        found.positions[rows:] = 0  # rows beyond B write into free slots, which are filled anew before they are used
        found.replay()
        return found.hidden[:rows]

    def _capture(self, shape: tuple[int, int], tokens: Tensor, positions: Tensor) -> _Captured:
        assert self.capture is not None
        rows, reach = shape
        own, places = tokens.new_zeros(rows), positions.new_zeros(rows)
        own[: len(tokens)], places[: len(positions)] = tokens, positions
        replay, hidden = self.capture(lambda: self._forward(own, places, reach))
        return _Captured(own, places, replay, hidden)

    def _forward(self, tokens: Tensor, positions: Tensor, reach: int) -> Tensor:
        self.cache.decode_at(positions, reach)
        return self.hidden(tokens, positions, self.cache)

    def hidden(self, tokens: Tensor, positions: Tensor, plan: Plan) -> Tensor:
        """Final hidden states of a packed stream: int64 [N], int64 [N] -> [N, D]."""
        return (self._straight or self.policy).hidden(tokens, positions, plan)


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()
