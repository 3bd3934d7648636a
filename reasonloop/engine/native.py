"""The native engine: continuous batching over static buffers, each prompt computed once for its whole group."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch

from reasonloop.config import Sampling
from reasonloop.config.sections import SLOTS
from reasonloop.engine.decoder import Capture, Decoder, decoder_for
from reasonloop.engine.draw import drawn, uniforms
from reasonloop.engine.protocol import Completion, Done, Request
from reasonloop.engine.slot_decoder import Prefilled
from reasonloop.engine.stop_text import stops
from reasonloop.errors import Diverged, InputError, RunError
from reasonloop.policy.codec import Codec
from reasonloop.policy.policy import Policy, Weights
from reasonloop.policy.shape import PREFILL_TOKENS
from reasonloop.policy.stream import common_prefix


class NativeEngine:
    """Samples with PyTorch on the policy's own weights: nothing is copied between learner and sampler.

    It doesn't keep a policy alive that nobody else has any more.
    """

    exact = True
    capture: Capture | None = None
    """How decoding steps are captured for replay; None: as CUDA graphs on a GPU, not at all elsewhere"""
    on_step: Callable[[int], None] | None = None
    """Called with the number of rows after every decoding step"""
    on_token: Callable[[int, np.ndarray], None] | None = None
    """Called with a request's number and its tokens so far, int64 [T], whenever it has one more: for who reads along"""

    def __init__(self, slots: int = SLOTS) -> None:
        """`slots`: responses in flight at once. Raises InputError where that is no whole number from 1."""
        if isinstance(slots, bool) or not isinstance(slots, int) or slots < 1:
            raise InputError(f"engine.slots = {slots!r}: expected a whole number of at least 1")
        self.slots = slots
        self._policy: Callable[[], Policy | None] = lambda: None
        self.version = 0
        self._decoder: Decoder | None = None
        self._made_of: object = None
        """What the decoder was made of"""

    def load(self, weights: Weights) -> None:
        if weights.policy is None:
            raise RunError("the native engine samples from a policy in this process, and got a folder")
        if weights.policy is not self._policy():
            self.close()
        self._policy, self.version = weakref.ref(weights.policy), weights.version

    def rest(self) -> None:
        if self._decoder is not None and not self._decoder.worth_keeping():
            self.close()

    def close(self) -> None:
        self._decoder = self._made_of = None

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, on_done: Done | None = None
    ) -> list[Completion]:
        """See `Engine`. Raises RunError when the policy has diverged, and InputError for responses of lengths at which the
        model's positions are turned anew."""
        policy = self._policy()
        if policy is None:
            raise RunError("the engine has no policy: call load() first")
        if not requests:
            return []
        for request in requests:
            if reason := policy.codec.rope.beyond(len(request.prompt), request.length or sampling.max_tokens):
                raise InputError(f"a response behind a prompt of {len(request.prompt)} tokens: {reason}")
        with torch.inference_mode():
            decoder = self._decoder_of(policy)
            try:
                return _Generation(self, policy.codec, decoder, requests, sampling, on_done).run()
            except BaseException:
                self.close()  # what it has in its buffers may be anything
                raise

    def _decoder_of(self, policy: Policy) -> Decoder:
        """One that has been kept, if it was made of the weights as they are."""
        if self._decoder is None or self._made_of != self._weights_for(self._decoder, policy):
            self.close()  # two of them need not fit
            self._decoder = decoder_for(policy, self.capture)
            self._made_of = self._weights_for(self._decoder, policy)
        return self._decoder

    def _weights_for(self, decoder: Decoder, policy: Policy) -> object:
        return policy.places() if decoder.in_place else (self.version, policy.fingerprint())


@dataclass
class _Asked:
    """Requests with one prompt, next to one another."""

    prompt: np.ndarray
    """int32 [P]"""
    first: int
    count: int


@dataclass
class _Ready:
    """Requests whose prompt has been computed."""

    asked: _Asked
    prompt: Prefilled
    sample: int = 0
    """The next one to admit"""


class _Generation:
    """One call of `generate`. What is known of the response in slot s stands in row s of the arrays."""

    def __init__(
        self,
        engine: NativeEngine,
        codec: Codec,
        decoder: Decoder,
        requests: Sequence[Request],
        sampling: Sampling,
        on_done: Done | None,
    ) -> None:
        self.decode, self.decoder = codec.decode, decoder
        self.requests, self.sampling, self.on_done = requests, sampling, on_done
        self.version, self.on_step, self.on_token = engine.version, engine.on_step, engine.on_token
        asked: list[_Asked] = []
        for _, members in groupby(range(len(requests)), key=lambda i: requests[i].prompt.tobytes()):
            own = list(members)
            asked.append(_Asked(requests[own[0]].prompt, own[0], len(own)))
        if decoder.lockstep:  # those of one length together
            asked.sort(key=lambda group: len(group.prompt))
        self.shared = 0 if decoder.lockstep else common_prefix([group.prompt for group in asked])
        self.slots = slots = min(engine.slots, len(requests))
        longest = max(sampling.max_tokens, *(request.length for request in requests))
        decoder.begin(slots, max(len(group.prompt) for group in asked) + longest)
        turned = [codec.rope.is_long(len(group.prompt)) for group in asked]
        queues = ([group for group, long in zip(asked, turned, strict=True) if long is kind] for kind in (False, True))
        self.queues = list(map(deque, queues))
        """What may be in flight together; each queue begins when the one before is done"""
        self.waiting = self.queues[0]
        self.ready: deque[_Ready] = deque()
        self.active = 0
        """Slots 0 .. active - 1 hold responses in flight"""
        self.request, self.prompt, self.count, self.limit, self.tail = np.zeros((5, slots), dtype=np.int64)
        """The number of its request, its prompt's tokens, its own so far, and at most; where the tail begins in which stop
        texts are looked for"""
        self.draws = np.zeros(slots, dtype=np.uint64)
        self.tokens = np.zeros((slots, longest), dtype=np.int64)
        self.logprobs = np.zeros((slots, longest), dtype=np.float32)
        sets = list(dict.fromkeys(_stops(request) for request in requests))
        self.stops = np.zeros((len(sets), 2 + max((max(ids, default=0) for ids in sets), default=0)), dtype=bool)
        """Whether a token ends a response, by set of stop tokens; the last column is for all larger ids"""
        for row, ids in zip(self.stops, sets, strict=True):
            row[list(ids)] = True
        self.set = np.array([sets.index(_stops(request)) for request in requests])
        """By request"""
        self.reads = any(request.stop_texts for request in requests)
        """Whether there are stop texts to look for"""
        self.done: list[Completion | None] = [None] * len(requests)

    def run(self) -> list[Completion]:
        for queue in self.queues:
            self.waiting = queue
            self._admit()
            while self.active:
                rows = np.arange(self.active)
                self._extend(
                    rows, *self.decoder.sample(self._last(), self._reach(rows) - 1, self._uniforms(rows), self.sampling)
                )
                if self.on_step is not None:
                    self.on_step(len(rows))
                self._retire()
                self._admit()
        return [completion for completion in self.done if completion is not None]

    def _last(self) -> np.ndarray:
        """The last token of each response in flight"""
        rows = np.arange(self.active)
        return self.tokens[rows, self.count[rows] - 1]

    def _reach(self, rows: np.ndarray) -> np.ndarray:
        """Tokens of the prompt and of the response so far"""
        return self.prompt[rows] + self.count[rows]

    def _uniforms(self, rows: np.ndarray) -> np.ndarray:
        """float64 [B], of each row's next token"""
        return uniforms(self.draws[rows], self.count[rows])

    def _extend(self, rows: np.ndarray, tokens: np.ndarray, logprobs: np.ndarray) -> None:
        """Appends what was drawn in each row: int64 [B], float32 [B]."""
        places = self.count[rows]
        if not np.isfinite(logprobs).all():
            raise Diverged("the policy's logits are not finite")
        self.tokens[rows, places], self.logprobs[rows, places] = tokens, logprobs
        self.count[rows] += 1
        if self.on_token is not None:
            for slot in rows.tolist():
                self.on_token(int(self.request[slot]), self.tokens[slot, : self.count[slot]])

    def _admit(self) -> None:
        """Fills free slots with the next samples, and draws their first tokens from their prompt's hidden state."""
        if self.decoder.lockstep and self.active:
            return
        while self.active < self.slots and (self.ready or self.waiting):
            first = slot = self.active
            prompts: list[Prefilled] = []
            while slot < self.slots and (self.ready or self.waiting):
                if not self.ready:
                    self._prefill()
                group = self.ready[0]
                number = group.asked.first + group.sample
                request = self.requests[number]
                self.request[slot], self.draws[slot] = number, request.draw
                self.prompt[slot], self.count[slot], self.tail[slot] = len(request.prompt), 0, 0
                self.limit[slot] = request.length or self.sampling.max_tokens
                prompts.append(group.prompt)
                group.sample += 1
                if group.sample == group.asked.count:
                    self.ready.popleft()
                slot += 1
            self.decoder.admit(prompts, first)
            self.active = slot
            rows, hidden = np.arange(first, slot), torch.stack([prompt.hidden for prompt in prompts])
            self._extend(rows, *drawn(self.decoder.head(), hidden, self._uniforms(rows), self.sampling))
            self._retire(first)

    def _prefill(self) -> None:
        """Computes the next prompts."""
        chosen: list[_Asked] = []
        total = self.shared
        while self.waiting and (not chosen or total + self._own_tokens(self.waiting[0]) <= PREFILL_TOKENS):
            chosen.append(self.waiting.popleft())
            total += self._own_tokens(chosen[-1])
        prompts = self.decoder.prefill([asked.prompt for asked in chosen])
        self.ready.extend(map(_Ready, chosen, prompts))

    def _own_tokens(self, asked: _Asked) -> int:
        return len(asked.prompt) - self.shared

    def _retire(self, first: int = 0) -> None:
        """Takes finished responses out and closes the gaps with the last ones, so that slots 0..B-1 stay those in flight.

        Slots before `first` have got no new token.
        """
        rows = np.arange(self.active)
        ends = self.stops[self.set[self.request[rows]], np.minimum(self._last(), self.stops.shape[1] - 1)]
        if self.reads:
            for slot in (first + np.flatnonzero(~ends[first:])).tolist():
                ends[slot] = self._reads_stop(slot)
        over = np.flatnonzero(ends | (self.count[rows] >= self.limit[rows]))
        if not len(over):
            return
        for slot in over.tolist():
            self._complete(slot, "stop" if ends[slot] else "length")
        self.active = left = self.active - len(over)
        holes = over[over < left]
        movers = np.setdiff1d(rows[left:], over, assume_unique=True)
        if len(holes):
            self.decoder.move(movers.tolist(), holes.tolist(), int(self._reach(movers).max()))
            numbers = (self.request, self.prompt, self.count, self.limit, self.tail, self.draws)
            for known in (*numbers, self.tokens, self.logprobs):
                known[holes] = known[movers]

    def _reads_stop(self, slot: int) -> bool:
        request = self.requests[self.request[slot]]
        if request.length or not request.stop_texts:
            return False
        tail = self.tokens[slot, self.tail[slot] : self.count[slot]]
        found, dropped = stops(tail, request.stop_texts, self.decode)
        self.tail[slot] += dropped
        return found

    def _complete(self, slot: int, finish: str) -> None:
        number, count = self.request[slot], self.count[slot]
        tokens, logprobs = self.tokens[slot, :count].astype(np.int32), self.logprobs[slot, :count].copy()
        self.done[number] = completion = Completion(tokens, logprobs, finish, self.version)
        if self.on_done is not None:
            self.on_done(int(number), completion)


def _stops(request: Request) -> frozenset[int]:
    """What ends a response of no given length"""
    return frozenset() if request.length else request.stop
