"""The doors to sampling and learning with several ranks behind them: what rank 0 asks the others to do with it."""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np

from reasonloop.config import Recipe, Sampling, own_code
from reasonloop.engine.protocol import Completion, Done, Engine, Request
from reasonloop.errors import RunError
from reasonloop.learner.batch import Example
from reasonloop.learner.critic import Critic
from reasonloop.learner.dealt import DealtLearner, dealt
from reasonloop.learner.local import SUMS, measured
from reasonloop.learner.losses import Objective
from reasonloop.learner.protocol import Measured
from reasonloop.machine.python import search_path
from reasonloop.own import search_own
from reasonloop.policy.digest import digest
from reasonloop.policy.policy import Policy, Weights
from reasonloop.ranks.channel import Leader
from reasonloop.ranks.worker import adapters_of_rank_0, learner_for, shared_out

LISTEN_SECONDS = 0.1
"""Between two looks for what others have sampled, so that it is judged while rank 0 samples"""


class Ranks:
    """The run's ranks, and which of rank 0's policies the others have, too."""

    def __init__(self, leader: Leader, recipe: Recipe, threads: int) -> None:
        self.leader, self.recipe = leader, recipe
        self.world = 1 + len(leader.others)
        self._numbers: weakref.WeakKeyDictionary[Policy, int] = weakref.WeakKeyDictionary()
        self._adapted: weakref.WeakSet[Policy] = weakref.WeakSet()
        self._next = count()
        self._learner: weakref.ref[RanksLearner] | None = None
        if own_code(recipe):
            search_own()
        self.ask("begin", recipe, threads, search_path())

    def ask(self, name: str, *arguments: object) -> list[object]:
        """Has all followers do something that rank 0 has no part in; their answers."""
        self.leader.tell(name, (), *arguments)
        return self.leader.answers()

    def tidy(self) -> None:
        """Followers keep what rank 0 still has."""
        self.ask("keep", [*self._numbers.values()], self._learner is not None and self._learner() is not None)

    def number_of(self, policy: Policy) -> int:
        """The policy's, under which the followers have it from now on; they load it from where rank 0 has. Raises RunError
        where that isn't the same."""
        if policy not in self._numbers:
            self.tidy()  # two of them need not fit
            number = self._numbers[policy] = next(self._next)
            self.ask("policy", number, policy.name)
            if policy.adapter is None:
                self._expect_same(policy, self.ask("digest", number), f"{policy.name} was loaded")
        number = self._numbers[policy]
        if policy.adapter is not None and policy not in self._adapted:
            self.leader.tell("adapt", (), number, policy.adapter.settings)
            with self.leader.together():
                adapters_of_rank_0(policy)
            self.leader.answers()
            self._adapted.add(policy)
            self._expect_same(policy, self.ask("digest", number), "an adapter was put beside its weights")
        return number

    def _expect_same(self, policy: Policy, found: Sequence[object], when: str) -> None:
        own = digest(policy)
        for rank, theirs in enumerate(found, 1):
            if theirs != own:
                raise RunError(
                    f"{self.leader.others[rank]} has other weights than rank 0 after {when}; nothing was sampled or learned "
                    "with them: is it the same file there? The same command goes on"
                )

    def load(self, engine: Engine, weights: Weights) -> None:
        """Each rank's engine has the weights. Raises RunError where they aren't the same."""
        if weights.policy is None:
            raise RunError("several ranks sample from a policy in their processes, and got a folder")
        self.leader.tell("load_engine", (), self.number_of(weights.policy), weights.version)
        engine.load(weights)
        self._expect_same(weights.policy, self.leader.answers(), f"version {weights.version} was loaded")

    def learner(self, policy: Policy, sampling: Sampling, critic: Critic | None) -> RanksLearner:
        """A learner of the policy on each rank."""
        self._learner = None
        self.tidy()
        self.leader.tell("learner_of", (), self.number_of(policy), sampling, None if critic is None else critic.kl_coef)
        learner = RanksLearner(self, learner_for(policy, self.recipe, sampling, critic))
        self.leader.answers()
        self._learner = weakref.ref(learner)
        return learner


class RanksEngine:
    """Each rank samples its share of a call's requests, with an engine of its own on all weights."""

    def __init__(self, ranks: Ranks, engine: Engine) -> None:
        self.ranks, self.engine, self.exact = ranks, engine, engine.exact
        self.mismatch: float | None = None
        """The largest of the ranks', where engines are checked"""
        self._listened = 0.0

    def load(self, weights: Weights) -> None:
        self.ranks.load(self.engine, weights)

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, on_done: Done | None = None
    ) -> list[Completion]:
        leader, found = self.ranks.leader, dict[int, Completion]()
        mine, *others = shared_out(len(requests), self.ranks.world)

        def take(rank: int, part: list[tuple[int, Completion]]) -> None:
            for index, completion in part:
                done(others[rank - 1], index, completion)

        def done(share: list[int], index: int, completion: Completion) -> None:
            found[share[index]] = completion
            if on_done is not None:
                on_done(share[index], completion)

        def own(index: int, completion: Completion) -> None:
            done(mine, index, completion)
            listen()

        def listen(rows: int = 0) -> None:
            if time.monotonic() - self._listened > LISTEN_SECONDS:
                leader.parts(take)
                self._listened = time.monotonic()

        if hasattr(self.engine, "on_step"):
            self.engine.on_step = listen
        leader.tell("generate", [([requests[i] for i in share],) for share in others], sampling)
        try:
            self.engine.generate([requests[i] for i in mine], sampling, own)
            mismatches = [getattr(self.engine, "mismatch", None), *leader.answers(take)]
        except BaseException:
            with suppress(RunError):
                leader.abandon()
            raise
        known = [one for one in mismatches if one is not None]
        self.mismatch = max(known) if known else None
        return [found[i] for i in range(len(requests))]

    def rest(self) -> None:
        self.ranks.ask("rest")
        self.engine.rest()

    def close(self) -> None:
        self.engine.close()


class RanksLearner:
    """The learners of all ranks as one: an update's streams are dealt to them. See `Learner`."""

    def __init__(self, ranks: Ranks, own: DealtLearner) -> None:
        self.ranks, self.own, self.policy = ranks, own, own.policy
        self.updates = self.skipped = 0

    @property
    def weights(self) -> Weights:
        self._gather()
        return self.own.weights

    def update(self, examples: Sequence[Example], rate: float, objective: Objective | None = None) -> Measured:
        """Raises RunError where the ranks haven't taken the same step."""
        objective = objective or Objective()
        if callable(objective.advantage):
            objective = replace(objective, advantage="grpo")  # it is in the examples already
        critic = self.own.critic is not None and any(example.value_weight is not None for example in examples)
        streams = dealt(examples, self.own.options.microbatch_tokens, self.ranks.world, self.policy.scorer.packing)
        leader = self.ranks.leader
        leader.tell("learn", [(own,) for own in streams[1:]], rate, objective, critic)
        with leader.together():
            mine = self.own.learn([streams[0]], rate, objective, critic)
        found = [mine, *leader.answers()]
        self.updates, self.skipped = self.own.updates, self.own.skipped
        for rank, one in enumerate(found[1:], 1):
            if not _same(one["grad_norm"], mine["grad_norm"]):
                raise RunError(
                    f"{leader.others[rank]} has gradients of norm {one['grad_norm']:.9g}, rank 0 {mine['grad_norm']:.9g}: "
                    "they don't learn the same any more; the same command goes on from the last checkpoint"
                )
        return measured(mine | {name: sum(one[name] for one in found) for name in SUMS}, examples)

    def score(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]], sampling: Sampling) -> list[np.ndarray]:
        self._gather()
        shares = shared_out(len(pairs), self.ranks.world)
        mine, *others = ([pairs[i] for i in share] for share in shares)
        self.ranks.leader.tell("score", [(own,) for own in others], sampling)
        own = self.own.score(mine, sampling)
        return [*own, *(one for found in self.ranks.leader.answers() for one in found)]

    def save(self, folder: Path, trainer_state: bool = True, whole: bool = True) -> None:
        self._all("save", folder, trainer_state, whole)

    def load(self, folder: Path) -> None:
        self._all("load", folder)
        self.updates, self.skipped = self.own.updates, self.own.skipped

    def _gather(self) -> None:
        if self.own.stale:
            self._all("gather")

    def _all(self, name: str, *arguments: object) -> None:
        """The same on all ranks, at the same time."""
        leader = self.ranks.leader
        leader.tell(name, (), *arguments)
        with leader.together():
            getattr(self.own, name)(*arguments)
        leader.answers()


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))
