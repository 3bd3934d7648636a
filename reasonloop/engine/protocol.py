"""The door to sampling engines: requests in, completions out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from reasonloop.config import Sampling
from reasonloop.policy.policy import Weights


@dataclass(frozen=True, slots=True)
class Request:
    """One response that is wanted. Requests with the same prompt should stand next to one another."""

    prompt: np.ndarray
    """int32 [P], P at least 1"""
    draw: int
    """64 bits that name its draws (`Place.draw`): an exact engine draws by them alone, others seed their own with them"""
    stop: frozenset[int] = frozenset()
    """Ids that end the response"""
    length: int = 0
    """Exactly so many tokens, whatever they are (timings on equal work); 0: as stops and max_tokens have it"""
    stop_texts: tuple[str, ...] = ()
    """Texts that end the response: its last token is the first one behind which its decoded text, without special tokens,
    has one of them. That token is kept whole."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One response."""

    tokens: np.ndarray
    """int32 [T], the stop token, or those of the stop text, included when there was one"""
    logprobs: np.ndarray
    """float32 [T], nats, of the distribution that was really sampled from: temperature, top-p, top-k and min-p included"""
    finish: str
    """"stop": ended with a stop token or text; "length": cut off"""
    version: int = 0
    """Of the weights that sampled it"""


Done = Callable[[int, Completion], None]


class Engine(Protocol):
    """Samples from a policy."""

    exact: bool
    """Whether its numbers are the learner's to rounding, and draws follow their request alone: the same response in any
    batch, in any order, after any interruption. What is not promised without it is said where a run starts, and each load is
    checked (`engine.checked`)."""

    def load(self, weights: Weights) -> None:
        """From now on responses come from these weights. Nothing to do for a version that it has."""
        ...

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, on_done: Done | None = None
    ) -> list[Completion]:
        """A completion for each request, in their order.

        `on_done(i, completion)` is called for each request i as soon as it is finished, in any order, while others are still
        being sampled; it is also the place to raise a stop.
        """
        ...

    def rest(self) -> None:
        """Gives the device's memory to the learner; the next `generate` comes after another `load`."""
        ...

    def close(self) -> None: ...
