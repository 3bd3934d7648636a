"""Sampling as the tests ask for it: prompts of chosen tokens, rollouts without verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from reasonloop.config import Sampling
from reasonloop.engine.native import NativeEngine
from reasonloop.engine.protocol import Engine
from reasonloop.engine.sample import Sampler as _Sampler
from reasonloop.policy.policy import Policy, Weights
from reasonloop.records import Group, Place, Problem, Rollout


def prompt(problem_id: str, tokens: np.ndarray) -> Group:
    return Group(Problem(problem_id, prompt=""), tokens)


def at(seed: int = 0, stage: str = "test", **place: Any) -> tuple[int, Place]:
    """What names the draws."""
    return seed, Place(stage=stage, **place)


def of_slots(slots: int = 256, **watched: Any) -> NativeEngine:
    """`watched`: its `capture` or `on_step`."""
    made = NativeEngine(slots)
    for name, value in watched.items():
        setattr(made, name, value)
    return made


class Sampler:
    """An engine with a policy."""

    def __init__(self, policy: Policy, engine: Engine | None = None) -> None:
        self.policy, self.engine = policy, engine or NativeEngine()

    def sample(
        self,
        prompts: Sequence[Group],
        n: int,
        sampling: Sampling,
        draws: tuple[int, Place] = (0, Place(stage="test")),
        lengths: np.ndarray | None = None,
    ) -> list[Rollout]:
        """`n` rollouts for each prompt, in order; with `lengths`, int [prompts x n], of exactly so many tokens each."""
        self.engine.load(Weights(policy=self.policy))
        asked = self.engine if lengths is None else Forced(self.engine, lengths)
        seed, place = draws
        groups = _Sampler(asked, self.policy.codec, sampling, seed).sample(prompts, n, place)  # type: ignore[arg-type]
        return [rollout for group in groups for rollout in group.rollouts]


class Forced:
    """An engine that gives responses of chosen lengths."""

    def __init__(self, engine: Engine, lengths: np.ndarray) -> None:
        self.engine, self.lengths = engine, lengths

    def generate(self, requests: Any, sampling: Sampling, on_done: Any = None) -> Any:
        forced = [replace(r, length=int(length)) for r, length in zip(requests, self.lengths, strict=True)]
        return self.engine.generate(forced, sampling, on_done)
