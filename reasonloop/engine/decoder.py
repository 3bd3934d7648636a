"""Decoders: what computes prompts and decoding steps inside the native engine. `decoder_for` chooses one.

A small step of a large model on a GPU is thousands of operations of microseconds each, and starting them one by one from
Python takes longer than they do. A CUDA graph starts them all at once: the model, its head and the draw, so that a step is
one copy to the GPU, one launch and one copy back. It is bound to its shapes, so that rows and reach are rounded up to a few
classes, and a shape is captured only when it has come up often enough to pay for that. It reads weights and caches where
they are, so that it outlives updates and calls.
"""

from __future__ import annotations

import sys
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from reasonloop.config import Sampling
from reasonloop.engine.draw import draw, drawn, together, unpacked
from reasonloop.engine.plain_decoder import PlainDecoder
from reasonloop.engine.slot_decoder import Prefilled, SlotDecoder
from reasonloop.kernels.matmul import wide_matmul
from reasonloop.policy.logprobs import Head, NoHead
from reasonloop.policy.plain import PlainScorer
from reasonloop.policy.policy import Policy
from reasonloop.policy.slots import PrefillPlan, SlotCache
from reasonloop.policy.transfer import sent

WORTH = 8
"""Steps of one shape before it is captured: that takes about as long as so many plain steps"""
LEAST_REACH = 128
LENGTHS = 256
"""Lengths of kept caches are multiples of it"""
KEPT = 0.25
"""Caches and graphs stay while the learner works where they hold at most so much of the memory that is free beside them"""
TOLERANCE = 1e-3
"""Most that a kernel's logits may differ from the modules', of their own size"""

Forward = Callable[[], Tensor]
Capture = Callable[[Forward], tuple[Callable[[], None], Tensor]]
"""A forward pass -> what does it again on the same tensors, and the tensor that its result appears in"""


class Decoder(Protocol):
    """Computes with a policy's weights. Hidden states are final ones, [.., D]."""

    in_place: bool
    """Whether it reads the weights where they are; else it has them as they were when it was made"""
    lockstep: bool
    """Whether responses only begin when none is in flight"""

    def begin(self, slots: int, length: int) -> None:
        """Makes room for so many responses at once, of so many tokens with their prompts."""
        ...

    def worth_keeping(self) -> bool:
        """Whether it should be there for the next call although the learner wants the memory in between."""
        ...

    def prefill(self, prompts: Sequence[np.ndarray]) -> list[Prefilled]:
        """Computes prompts, int32 [P] each."""
        ...

    def admit(self, prefilled: Sequence[Prefilled], first: int) -> None:
        """Responses to these prompts begin in the slots from `first` on; a prompt is there once for each of them."""
        ...

    def move(self, sources: Sequence[int], targets: Sequence[int], reach: int) -> None:
        """Compaction: responses in the `sources` slots go to the `targets` slots; none has more than `reach` tokens with its
        prompt."""
        ...

    def step(self, tokens: np.ndarray, positions: np.ndarray) -> Tensor:
        """Hidden states [B, D] of one token in each of the slots 0..B-1, int64 [B], at int64 [B] positions. Overwritten
        by the next step."""
        ...

    def head(self) -> Head | NoHead:
        """What makes logits of `step`'s hidden states, and says which tokens are never drawn."""
        ...

    def sample(
        self, tokens: np.ndarray, positions: np.ndarray, uniforms: np.ndarray, sampling: Sampling
    ) -> tuple[np.ndarray, np.ndarray]:
        """A whole decoding step: what is drawn after `step`'s hidden states by float64 [B] uniforms: int64 [B], and its
        log-probs, float32 [B], nats."""
        ...


def decoder_for(policy: Policy, capture: Capture | None = None) -> Decoder:
    """The fastest decoder that this policy and machine have. A kernel that doesn't compute what the model's own modules do
    (built wrongly, or for another processor) is warned of, and the modules decode."""
    from reasonloop.engine.kernel_decoder import KernelDecoder

    if isinstance(policy.scorer, PlainScorer):
        return PlainDecoder(policy)
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
        one.admit(one.prefill([row[:-1] for row in ids]), 0)
        found.append(one.head().logits(one.step(ids[:, -1].copy(), np.full(rows, ids.shape[1] - 1))))
    ours, theirs = found
    if not theirs.isfinite().all():
        return 0.0
    return float(((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-6)).nan_to_num(torch.inf))


class CudaGraphs:
    """Captures what runs on tensors that stay where they are. One graph runs at a time, so that all share one pool of memory
    for what is in between. Raises RuntimeError for what can't be captured, since it waits for the GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._pool = device, torch.cuda.graph_pool_handle()
        self._aside = torch.cuda.Stream(device)

    def __call__(self, forward: Forward) -> tuple[Callable[[], None], Tensor]:
        with torch.cuda.device(self._device):
            before, mode = torch.cuda.current_stream(), torch.cuda.get_sync_debug_mode()
            self._aside.wait_stream(before)
            try:
                with torch.cuda.stream(self._aside):
                    forward()  # libraries set up their workspaces at the first call, which can't be captured
                    torch.cuda.set_sync_debug_mode("error")  # a capture that fails leaves its stream and memory behind
                    forward()
            finally:
                torch.cuda.set_sync_debug_mode(mode)
                before.wait_stream(self._aside)
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph, pool=self._pool, stream=self._aside, capture_error_mode="thread_local"):
                    result = forward()
            except BaseException:
                torch.cuda.set_stream(before)
                raise
        return graph.replay, result


class _Captured:
    """A decoding step of so many rows that was captured."""

    def __init__(self, rows: int, device: torch.device) -> None:
        self._given = torch.zeros(3, rows, dtype=torch.int64, pin_memory=device.type == "cuda")
        self._numbers = self._given.numpy()
        self._there = self._given.to(device)
        self.tokens, self.positions = self._there[:2]
        """int64 [rows], read by the replay; so are the uniforms, float64 [rows]"""
        self.uniforms = self._there[2].view(torch.float64)
        self.replay: Callable[[], None]
        self.result: Tensor
        """float64 [2, rows], written by the replay: as `draw.together` has it"""

    def give(self, tokens: np.ndarray, positions: np.ndarray, uniforms: np.ndarray) -> None:
        numbers, rows = self._numbers, len(tokens)
        numbers[0, :rows], numbers[1, :rows], numbers[2, :rows] = tokens, positions, uniforms.view(np.int64)
        numbers[1, rows:] = 0  # rows beyond B write into free slots, which are filled anew before they are used
        self._there.copy_(self._given, non_blocking=True)


class ModuleDecoder(SlotDecoder):
    """Decodes with transformers' own modules: any model, any device. `capture`: how steps are captured for replay; unset:
    as CUDA graphs on a GPU, not at all elsewhere."""

    in_place = True

    def __init__(self, policy: Policy, capture: Capture | None = None) -> None:
        self._policy = weakref.ref(policy)  # it is kept for long, and must not keep weights that nobody wants any more
        self.capture = capture or (CudaGraphs(policy.device) if policy.device.type == "cuda" else None)
        self.cache = SlotCache(0, 0, policy.device)
        self._forget()

    @property
    def policy(self) -> Policy:
        policy = self._policy()
        assert policy is not None, "the decoder's policy is gone"
        return policy

    def _forget(self) -> None:
        self._steps: Counter[Hashable] = Counter()
        self._captured: dict[Hashable, _Captured] = {}
        self._captures_hold = 0
        """Bytes"""

    def begin(self, slots: int, length: int) -> None:
        if self.capture is None:
            self.cache = SlotCache(slots, length, self.policy.device)
        elif slots > self.cache.slots or length > self.cache.length:
            slots, length = max(slots, self.cache.slots), max(length, self.cache.length)
            self._forget()
            self.cache = SlotCache(0, 0, self.cache.device)  # the old and the new one need not fit together
            self.cache = SlotCache(slots, -(-length // LENGTHS) * LENGTHS, self.cache.device)

    def worth_keeping(self) -> bool:
        held = self.cache.held + self._captures_hold
        return bool(self._captured) and held <= KEPT * free_memory(self.cache.device)

    def hidden(self, tokens: Tensor, positions: Tensor, plan: PrefillPlan) -> Tensor:
        with wide_matmul(self.policy.device):
            return self.policy.hidden(tokens, positions, plan)

    def head(self) -> Head | NoHead:
        return self.policy.head()

    def step(self, tokens: np.ndarray, positions: np.ndarray) -> Tensor:
        tokens_B, positions_B = (sent(array, self.cache.device) for array in (tokens, positions))
        return self._forward(tokens_B, positions_B, int(positions.max()) + 1)

    def sample(
        self, tokens: np.ndarray, positions: np.ndarray, uniforms: np.ndarray, sampling: Sampling
    ) -> tuple[np.ndarray, np.ndarray]:
        captured = self._captured_for(tokens, positions, uniforms, sampling) if self.capture is not None else None
        if captured is None:
            return drawn(self.head(), self.step(tokens, positions), uniforms, sampling)
        captured.replay()
        return unpacked(captured.result[:, : len(tokens)])

    def _captured_for(
        self, tokens: np.ndarray, positions: np.ndarray, uniforms: np.ndarray, sampling: Sampling
    ) -> _Captured | None:
        """The captured step of this shape and distribution, with its inputs; None while that has come up too rarely."""
        rows, reach = len(tokens), max(int(positions.max()) + 1, LEAST_REACH)
        shape = (min(size_class(rows), self.cache.slots), min(size_class(reach), self.cache.length))
        key = (shape, sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p)
        self._steps[key] += 1
        if self._steps[key] < WORTH:
            return None
        found = self._captured.get(key) or _Captured(shape[0], self.cache.device)
        found.give(tokens, positions, uniforms)  # before the capture, whose warm-up writes keys and values
        if key not in self._captured:
            before = free_memory(self.cache.device)
            try:
                self._capture(found, shape[1], sampling)
            except RuntimeError as error:  # a model that asks the GPU something in its forward pass, or no memory
                reason = str(error).partition("\n")[0]
                warnings.warn(f"decoding steps can't be captured ({reason}): plain steps instead", stacklevel=2)
                self.capture = None
                self._forget()
                return None
            self._captured[key] = found
            self._captures_hold += max(0, before - free_memory(self.cache.device))
        return found

    def _capture(self, own: _Captured, reach: int, sampling: Sampling) -> None:
        assert self.capture is not None

        def forward() -> Tensor:
            hidden = self._forward(own.tokens, own.positions, reach)
            head = self.head()
            return together(*draw(head.logits(hidden), own.uniforms, sampling, head.absent))

        own.replay, own.result = self.capture(forward)

    def _forward(self, tokens: Tensor, positions: Tensor, reach: int) -> Tensor:
        self.cache.decode_at(positions, reach)
        return self.policy.hidden(tokens, positions, self.cache)


def size_class(count: int) -> int:
    """The smallest of 1, 2, 3, 4, 6, 8, 12, 16, 24, ... that is not below `count`."""
    whole = 1 << (count - 1).bit_length()
    return whole * 3 // 4 if whole >= 4 and count <= whole * 3 // 4 else whole


def free_memory(device: torch.device) -> int:
    """Bytes that torch could still take of a GPU's memory; without a bound elsewhere."""
    if device.type != "cuda":
        return sys.maxsize
    reserved, allocated = torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + reserved - allocated
