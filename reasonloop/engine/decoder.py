"""Decoders: what computes prompts and decoding steps inside the native engine. `decoder_for` chooses one.

A small step of a large model on a GPU is thousands of operations of microseconds each, and starting them one by one from
Python takes longer than they do. A CUDA graph starts them all at once. It is bound to its shapes, so that rows and reach are
rounded up to powers of two, and a shape is captured only when it has come up often enough to pay for that.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from reasonloop.engine.slots import PrefillPlan, SlotCache
from reasonloop.kernels.matmul import wide_matmul
from reasonloop.policy.policy import Policy
from reasonloop.policy.stream import Layout

WORTH = 8
"""Steps of one shape before it is captured: that takes about as long as so many plain steps"""
LEAST_REACH = 128
TOLERANCE = 1e-3
"""Most that a kernel's logits may differ from the modules', of their own size"""

Forward = Callable[[], Tensor]
Capture = Callable[[Forward], tuple[Callable[[], None], Tensor]]
"""A forward pass -> what does it again on the same tensors, and the tensor that its result appears in"""


class Decoder(Protocol):
    """Computes with a policy's weights as they were when it was made. Hidden states are final ones, [.., D]."""

    cache: SlotCache
    """Keys and values of the responses in flight"""

    def begin(self, slots: int, length: int) -> None:
        """Makes room for so many responses at once, of so many tokens with their prompts."""
        ...

    def prefill(self, tokens: Tensor, positions: Tensor, plan: PrefillPlan) -> Tensor:
        """Hidden states of a packed stream of prompts, int64 [N], int64 [N] -> [N, D]; the plan keeps keys and values."""
        ...

    def step(self, tokens: np.ndarray, positions: np.ndarray) -> Tensor:
        """Hidden states [B, D] of one token in each of the slots 0..B-1, int64 [B], at int64 [B] positions. Overwritten
        by the next step."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [B, D] -> float32 [B, V]."""
        ...


def decoder_for(policy: Policy, capture: Capture | None = None) -> Decoder:
    """The fastest decoder that this model and machine have. A kernel that doesn't compute what the model's own modules do
    (built wrongly, or for another processor) is warned of, and the modules decode."""
    from reasonloop.engine.kernel_decoder import KernelDecoder

    modules = ModuleDecoder(policy, capture)
    kernels = KernelDecoder.of(policy) if modules.capture is None else None
    if kernels is None:
        return modules
    with torch.inference_mode():
        difference = disagreement(kernels, modules)
    if difference < TOLERANCE:
        return kernels
    warnings.warn(
        f"our decoding kernels are wrong here: their logits differ from the model's own modules' by {difference:.2g} "
        "(relative); the modules decode instead, slower. Delete ~/.cache/reasonloop to have the kernels built again, or set "
        "REASONLOOP_KERNELS=off",
        stacklevel=2,
    )
    return modules


def disagreement(decoder: Decoder, modules: ModuleDecoder) -> float:
    """The largest difference of one decoded step's logits from the modules', as a share of the largest logit. A policy
    that has diverged, whose logits are NaN in both, agrees with itself."""
    policy = modules.policy
    rows = 2
    ids = np.random.default_rng(0).integers(0, policy.vocabulary, (rows, 5)).astype(np.int64)
    found = []
    for one in (decoder, modules):
        one.begin(rows, ids.shape[1])
        layout = Layout()
        spans = layout.lay_prompts([row[:-1] for row in ids])
        plan = PrefillPlan(layout.segments, policy.device)
        one.prefill(layout.tokens(policy.device), layout.positions(policy.device), plan)
        stream = np.concatenate([np.arange(start, start + length) for own in spans for start, length in own])
        slots, places = np.divmod(np.arange(ids[:, :-1].size), ids.shape[1] - 1)
        one.cache.admit(plan, *map(torch.from_numpy, (stream, slots, places)))
        found.append(one.logits(one.step(ids[:, -1].copy(), np.full(rows, ids.shape[1] - 1))))
    ours, theirs = found
    if not theirs.isfinite().all():
        return 0.0
    return float(((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-6)).nan_to_num(torch.inf))


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


class ModuleDecoder:
    """Decodes with transformers' own modules: any model, any device. `capture`: how steps are captured for replay; unset:
    as CUDA graphs on a GPU, not at all elsewhere."""

    def __init__(self, policy: Policy, capture: Capture | None = None) -> None:
        self.policy = policy
        self.capture = capture or (cuda_graph if policy.device.type == "cuda" else None)
        self._head = policy.head()

    def begin(self, slots: int, length: int) -> None:
        self.cache = SlotCache(slots, length, self.policy.device)
        self._steps: Counter[tuple[int, int]] = Counter()
        self._captured: dict[tuple[int, int], _Captured] = {}

    def prefill(self, tokens: Tensor, positions: Tensor, plan: PrefillPlan) -> Tensor:
        with wide_matmul(self.policy.device):
            return self.policy.hidden(tokens, positions, plan)

    def logits(self, hidden: Tensor) -> Tensor:
        return self._head.logits(hidden)

    def step(self, tokens: np.ndarray, positions: np.ndarray) -> Tensor:
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
        return self.policy.hidden(tokens, positions, self.cache)


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()
