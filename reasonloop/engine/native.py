"""The native engine: continuous batching over static buffers, each prompt computed once for its whole group."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from reasonloop.config import Sampling
from reasonloop.engine.decoder import Capture, Decoder, cuda_graph
from reasonloop.engine.draw import draw
from reasonloop.engine.kernel_forward import KernelForward
from reasonloop.engine.protocol import Address, Prompt, uniforms
from reasonloop.engine.slots import PrefillPlan, SlotCache
from reasonloop.errors import InputError, RunError
from reasonloop.policy.logprobs import Head
from reasonloop.policy.packed import packed_weights
from reasonloop.policy.policy import Policy
from reasonloop.policy.stream import Layout, common_prefix
from reasonloop.records import Rollout

# Prompt tokens computed at once, ahead of free slots. What all prompts begin with is computed once in each such batch, so
# that few and large ones are good; keys and values of waiting prompts cost memory, so that there is a bound.
PREFILL_TOKENS = 4096


@dataclass
class _Ready:
    """A prompt that has been computed: where its keys and values are, and the hidden state that the response starts from."""

    index: int
    prefill: PrefillPlan
    stream: np.ndarray
    """int64 [P], where the prompt's tokens are in the prefill's stream"""
    hidden: Tensor
    sample: int = 0
    """The next sample to admit"""


@dataclass
class _Row:
    """A response in flight."""

    index: int
    """prompt * n + sample: its place in the result"""
    prompt: Prompt
    sample: int
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


class NativeEngine:
    """Samples with PyTorch on the policy's own weights: nothing is copied between learner and sampler."""

    def __init__(self, capture: Capture | None = None) -> None:
        """`capture`: how decoding steps are captured for replay; unset: as CUDA graphs on a GPU, not at all elsewhere."""
        self._policy: Policy | None = None
        self._capture = capture

    def load(self, policy: Policy) -> None:
        self._policy = policy

    def sample(
        self,
        prompts: Sequence[Prompt],
        n: int,
        sampling: Sampling,
        address: Address,
        on_finished: Callable[[int, Rollout], None] | None = None,
        lengths: np.ndarray | None = None,
        on_tokens: Callable[[int], None] | None = None,
    ) -> list[Rollout]:
        """`n` rollouts for each prompt, in order.

        `on_finished(i, rollout)`: called as soon as response i is finished, while others are still being sampled.
        `lengths`, int [prompts x n] from 1 to max_tokens: response i has exactly lengths[i] tokens, and stop tokens don't
        end it (for timings on equal work). `on_tokens`: called with the number of new tokens after every decoding step;
        progress, and the place to raise a stop.

        Raises InputError when a prompt and max_tokens exceed the context or a prompt has no tokens, and RunError when
        the policy has diverged.
        """
        if self._policy is None:
            raise RunError("the engine has no policy: call load() first")
        if not prompts:
            return []
        for prompt in prompts:
            if len(prompt.tokens) == 0:
                raise InputError(f"problem {prompt.problem_id}: its prompt has no tokens")
        longest = max(prompts, key=lambda prompt: len(prompt.tokens))
        self._policy.check_context(f"problem {longest.problem_id}", longest.tokens, sampling)
        capture = self._capture or (cuda_graph if self._policy.device.type == "cuda" else None)
        with torch.inference_mode():
            kernels = KernelForward.of(self._policy) if capture is None else None
            with nullcontext(kernels.head) if kernels is not None else packed_weights(self._policy) as head:
                batch = _Batch(
                    self._policy, head, prompts, n, sampling, address, on_tokens, on_finished, lengths, capture, kernels
                )
                return batch.run()


class _Batch:
    """One call of `sample`."""

    def __init__(
        self,
        policy: Policy,
        head: Head,
        prompts: Sequence[Prompt],
        n: int,
        sampling: Sampling,
        address: Address,
        on_tokens: Callable[[int], None] | None,
        on_finished: Callable[[int, Rollout], None] | None,
        lengths: np.ndarray | None,
        capture: Capture | None,
        kernels: KernelForward | None,
    ) -> None:
        self.on_finished, self.lengths = on_finished, lengths
        self.policy, self.prompts, self.n, self.sampling, self.address = policy, prompts, n, sampling, address
        self.on_tokens = on_tokens
        self.head, self.device = head, policy.device
        self.stop = policy.stop_tokens(sampling.stop)
        longest = max(len(prompt.tokens) for prompt in prompts)
        self.shared = common_prefix([prompt.tokens for prompt in prompts])
        slots = min(sampling.slots, len(prompts) * n)
        length = longest + sampling.max_tokens
        self.cache = kernels.cache(slots, length) if kernels is not None else SlotCache(slots, length, self.device)
        self.decoder = Decoder(policy, self.cache, capture, kernels)
        self.waiting = deque(range(len(prompts)))
        self.ready: deque[_Ready] = deque()
        self.rows: list[_Row] = []  # rows[s] is in slot s
        self.keys = np.zeros(slots, dtype=np.uint64)
        self.done: list[Rollout | None] = [None] * (len(prompts) * n)

    def run(self) -> list[Rollout]:
        while True:
            self._admit()
            if not self.rows:
                break
            last = np.array([row.tokens[-1] for row in self.rows])
            # the last token's place: after the prompt and the response's tokens before it
            positions = np.array([len(row.prompt.tokens) + len(row.tokens) - 1 for row in self.rows])
            hidden = self.decoder.step(last, positions)
            self._extend(self.rows, hidden, np.arange(len(self.rows)))
            if self.on_tokens is not None:
                self.on_tokens(len(self.rows))
            self._retire()
        return [rollout for rollout in self.done if rollout is not None]

    def _extend(self, rows: list[_Row], hidden: Tensor, slots: np.ndarray) -> None:
        """Draws the next token of each row from its hidden state."""
        places = np.array([len(row.tokens) for row in rows])
        tokens, logprobs = draw(self.head.logits(hidden), uniforms(self.keys[slots], places), self.sampling)
        drawn = logprobs.tolist()
        if not all(map(math.isfinite, drawn)):
            raise RunError("the policy's logits are not finite: training has diverged; lower the learning rate")
        for row, token, logprob in zip(rows, tokens.tolist(), drawn, strict=True):
            row.tokens.append(token)
            row.logprobs.append(logprob)

    def _finished(self, row: _Row) -> bool:
        if self.lengths is not None:
            return len(row.tokens) >= self.lengths[row.index]
        return row.tokens[-1] in self.stop or len(row.tokens) >= self.sampling.max_tokens

    def _admit(self) -> None:
        """Fills free slots with the next samples, and draws their first tokens from their prompt's hidden state."""
        while len(self.rows) < self.cache.slots and (self.ready or self.waiting):
            first = len(self.rows)
            fresh: list[_Row] = []
            hidden: list[Tensor] = []
            copies: dict[int, tuple[PrefillPlan, list[np.ndarray], list[np.ndarray], list[np.ndarray]]] = {}
            while first + len(fresh) < self.cache.slots and (self.ready or self.waiting):
                if not self.ready:
                    self._prefill()
                group = self.ready[0]
                row = _Row(group.index * self.n + group.sample, self.prompts[group.index], group.sample)
                slot = first + len(fresh)
                self.keys[slot] = self.address.row_key(row.prompt.problem_id, row.sample)
                fresh.append(row)
                hidden.append(group.hidden)
                _, stream, slots, places = copies.setdefault(id(group.prefill), (group.prefill, [], [], []))
                stream.append(group.stream)
                slots.append(np.full(len(group.stream), slot))
                places.append(np.arange(len(group.stream)))
                group.sample += 1
                if group.sample == self.n:
                    self.ready.popleft()
            for prefill, *lists in copies.values():
                indices = [torch.from_numpy(np.concatenate(part)).to(self.device) for part in lists]
                self.cache.admit(prefill, *indices)
            self.rows += fresh
            self._extend(fresh, torch.stack(hidden), np.arange(first, first + len(fresh)))
            self._retire()

    def _prefill(self) -> None:
        """Computes the next prompts, packed without padding."""
        indices: list[int] = []
        total = self.shared
        while self.waiting and (not indices or total + self._own_tokens(self.waiting[0]) <= PREFILL_TOKENS):
            indices.append(self.waiting.popleft())
            total += self._own_tokens(indices[-1])
        layout = Layout()
        spans = layout.lay_prompts([self.prompts[i].tokens for i in indices])
        plan = PrefillPlan(layout.segments, self.device)
        hidden = self.decoder.hidden(layout.tokens(self.device), layout.positions(self.device), plan)
        for i, own in zip(indices, spans, strict=True):
            stream = np.concatenate([np.arange(start, start + length) for start, length in own])
            self.ready.append(_Ready(i, plan, stream, hidden[stream[-1]].clone()))

    def _own_tokens(self, index: int) -> int:
        return len(self.prompts[index].tokens) - self.shared

    def _retire(self) -> None:
        """Takes finished rows out and closes the gaps with the last rows, so that active slots stay 0..B-1."""
        over = [slot for slot, row in enumerate(self.rows) if self._finished(row)]
        if not over:
            return
        for slot in over:
            row = self.rows[slot]
            tokens = np.asarray(row.tokens, dtype=np.int32)
            rollout = Rollout(
                problem_id=row.prompt.problem_id,
                prompt_tokens=row.prompt.tokens,
                response_tokens=tokens,
                logprobs=np.asarray(row.logprobs, dtype=np.float32),
                finish="stop" if row.tokens[-1] in self.stop else "length",
                text=self.policy.decode(tokens),
                branch=self.address.branch,
                iteration=self.address.iteration,
                step=self.address.step,
                sample=row.sample,
            )
            self.done[row.index] = rollout
            if self.on_finished is not None:
                self.on_finished(row.index, rollout)
        left = len(self.rows) - len(over)
        finished = set(over)
        holes = [slot for slot in over if slot < left]
        movers = [slot for slot in range(left, len(self.rows)) if slot not in finished]
        if holes:
            reach = max(len(self.rows[slot].prompt.tokens) + len(self.rows[slot].tokens) for slot in movers)
            self.cache.move(torch.tensor(movers), torch.tensor(holes), reach)
            self.keys[holes] = self.keys[movers]
            for hole, mover in zip(holes, movers, strict=True):
                self.rows[hole] = self.rows[mover]
        del self.rows[left:]
