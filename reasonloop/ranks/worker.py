"""What a follower has and does: policies, a learner and an engine of its own, used when rank 0 says so."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch.distributed as dist

from reasonloop.config import LoraSettings, Recipe, Sampling
from reasonloop.engine.protocol import Completion, Engine, Request
from reasonloop.engine.registry import engine_of
from reasonloop.learner.batch import Example
from reasonloop.learner.critic import Critic
from reasonloop.learner.dealt import DealtLearner
from reasonloop.learner.fsdp import FsdpLearner
from reasonloop.learner.losses import Objective
from reasonloop.learner.protocol import Measured
from reasonloop.machine.threads import prepare_threads
from reasonloop.policy import adapters
from reasonloop.policy.digest import digest
from reasonloop.policy.loading import resolve_device
from reasonloop.policy.policy import Policy, Weights
from reasonloop.ranks.channel import Line

PART_SECONDS = 0.5
"""Finished responses are sent when so much time has passed since the last ones"""
ASK_SECONDS = 0.1
"""Between two looks whether rank 0 still wants what is sampled"""


class Abandoned(Exception):
    """Rank 0 has no use any more for what is sampled."""


class Worker:
    """Its methods are the commands; see `doors` for what rank 0 does meanwhile."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.policies: dict[int, Policy] = {}
        """By rank 0's number"""
        self.learner: DealtLearner | None = None

    def begin(self, recipe: Recipe, threads: int, path: list[str]) -> None:
        """`path`: where rank 0 finds modules."""
        sys.path[:] = path
        prepare_threads(threads)
        self.recipe = recipe
        self.engine: Engine = engine_of(recipe.engine)

    def keep(self, alive: Sequence[int], learner: bool) -> None:
        """Lets go of all but these policies, and of the learner unless it is to stay."""
        if not learner:
            self.learner = None
        for number in self.policies.keys() - set(alive):
            del self.policies[number]
        gc.collect()

    def policy(self, number: int, source: str) -> None:
        options = self.recipe.model
        self.policies[number] = Policy.load(
            source, resolve_device(options.device), options.dtype, options.trust_remote_code
        )

    def adapt(self, number: int, settings: LoraSettings) -> None:
        policy = self.policies[number]
        policy.adapt(settings)
        adapters_of_rank_0(policy)

    def digest(self, number: int) -> int:
        return digest(self.policies[number])

    def load_engine(self, number: int, version: int) -> int:
        self.engine.load(Weights(version, self.policies[number]))
        return digest(self.policies[number])

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> float | None:
        """Completions are sent as they come, by request. Returns the engine's mismatch."""
        done: list[tuple[int, Completion]] = []
        sent = asked = time.monotonic()

        def on_done(index: int, completion: Completion) -> None:
            nonlocal sent
            check()
            done.append((index, completion))
            if time.monotonic() - sent >= PART_SECONDS:
                self.line.part([*done])
                done.clear()
                sent = time.monotonic()

        def check(rows: int = 0) -> None:
            nonlocal asked
            if time.monotonic() - asked >= ASK_SECONDS:
                asked = time.monotonic()
                if self.line.abandoned():
                    raise Abandoned

        if hasattr(self.engine, "on_step"):
            self.engine.on_step = check
        try:
            self.engine.generate(requests, sampling, on_done)
        except Abandoned:
            return None
        self.line.part(done)
        return getattr(self.engine, "mismatch", None)

    def rest(self) -> None:
        self.engine.rest()

    def learner_of(self, number: int, sampling: Sampling, kl_coef: float | None) -> None:
        """`kl_coef`: of a critic, where there is one."""
        recipe, policy = self.recipe, self.policies[number]
        critic = Critic(policy, recipe.ppo, recipe.optimizer, kl_coef) if kl_coef is not None else None
        self.learner = learner_for(policy, recipe, sampling, critic)

    def learn(
        self, streams: Sequence[Sequence[Example]], rate: float, objective: Objective, with_critic: bool
    ) -> Measured:
        return self._learner.learn([streams], rate, objective, with_critic)

    def gather(self) -> None:
        self._learner.gather()

    def score(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]], sampling: Sampling) -> list[np.ndarray]:
        return self._learner.score(pairs, sampling)

    def save(self, folder: Path, trainer_state: bool, whole: bool) -> None:
        self._learner.save(folder, trainer_state, whole)

    def load(self, folder: Path) -> None:
        self._learner.load(folder)

    @property
    def _learner(self) -> DealtLearner:
        assert self.learner is not None
        return self.learner


def learner_for(policy: Policy, recipe: Recipe, sampling: Sampling, critic: Critic | None) -> DealtLearner:
    """This rank's: shards of all weights, or the whole of an adapter."""
    kind = FsdpLearner if policy.adapter is None else DealtLearner
    return kind(policy, recipe.optimizer, sampling, recipe.model.gradient_checkpointing, critic)


def adapters_of_rank_0(policy: Policy) -> None:
    """All ranks have rank 0's adapter from now on; called by all."""
    for name, parameter in policy.model.named_parameters():
        if adapters.is_own(name):
            dist.broadcast(parameter.data, 0)


def shared_out(count: int, ranks: int) -> list[list[int]]:
    """Numbers from 0 in equal parts, by rank; each a run of neighbours."""
    return [part.tolist() for part in np.array_split(np.arange(count), ranks)]
