"""The protocol that all sampling engines keep, and the addresses of their randomness."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from reasonloop.config import Sampling
from reasonloop.policy.policy import Policy
from reasonloop.records import Rollout


@dataclass(frozen=True)
class Prompt:
    problem_id: str
    tokens: np.ndarray
    """int32 [P]"""


@dataclass(frozen=True)
class Address:
    """Names a set of draws. Equal addresses draw equal uniforms, whatever the batch, the order or the machine."""

    seed: int
    purpose: str
    """"rl", "eval/test", ...: draws for different purposes are independent"""
    branch: str = "main"
    iteration: int = 0
    step: int = 0

    def row_key(self, problem_id: str, sample: int) -> int:
        """64 bits that name one response's draws. The branch is left out: arms are compared on the same luck."""
        text = f"{self.seed}\0{self.purpose}\0{self.iteration}\0{self.step}\0{problem_id}\0{sample}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def uniforms(row_keys: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The uniform in [0, 1) of each (row key, position): uint64 [B], int [B] -> float64 [B]. SplitMix64 as a counter."""
    with np.errstate(over="ignore"):
        x = row_keys.astype(np.uint64) + (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53


class Engine(Protocol):
    """Samples from a policy. Rollouts come back in the order of the prompts, n in a row for each, without verdicts."""

    def load(self, policy: Policy) -> None:
        """From now on samples come from this policy, and from its weights as they are at each call."""
        ...

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
        """`on_finished(i, rollout)` is called for response i of the result as soon as it is there, in any order.
        `lengths`, int [prompts x n]: exactly so many tokens each. `on_tokens(count)` is called after every few tokens."""
        ...
