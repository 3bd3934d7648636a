"""A run that is being worked on: its folder, and what all of its stages share."""

from __future__ import annotations

import datetime
import gc
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from reasonloop.config import Recipe, Sampling
from reasonloop.errors import Diverged, Stopped
from reasonloop.machine.threads import available_cores
from reasonloop.records import Group, Problem
from reasonloop.runs.folder import RunFolder
from reasonloop.runs.inputs import date_of
from reasonloop.runs.models import pinned
from reasonloop.runs.progress import Progress

if TYPE_CHECKING:
    from reasonloop.engine.protocol import Engine
    from reasonloop.engine.sample import Sampler
    from reasonloop.learner.critic import Critic
    from reasonloop.learner.protocol import Learner
    from reasonloop.policy.codec import Codec
    from reasonloop.policy.policy import Policy
    from reasonloop.ranks.channel import Leader
    from reasonloop.ranks.doors import Ranks
    from reasonloop.rewards.functions import RewardFunctions
    from reasonloop.runs.cluster import Cluster
    from reasonloop.store.segments import TrajectoryStore
    from reasonloop.tasks import Task
    from reasonloop.verify.workers import VerifierPool

SHARED = ("engine", "verifier", "rewards", "cluster")
"""What is closed with the session, if it was used"""


class Session:
    """The run in a folder, started or continued. Raises InputError as `RunFolder` does."""

    def __init__(
        self, recipe: Recipe, path: Path, commits: Mapping[str, str] | None = None, leader: Leader | None = None
    ) -> None:
        """`commits`: those of a new run's models of the hub (`runs.models`); one that goes on knows its own. `leader`: where
        torchrun has started several ranks."""
        self.folder = RunFolder(recipe, path, commits or {})
        self.recipe = pinned(recipe, self.folder.commits)
        self.progress = Progress(1.0)
        self.planned: Mapping[str, float] = {}
        """By stage (`Place.name`): the units of work that the plan has for it"""
        self.stopping = False
        self.said: set[str] = set()
        """What needs to be said once only"""
        self.skipped = 0
        """Updates that were left out one after another, up to the last one"""
        self.apart = 0.0
        """Nats a token between sampler and learner: the most that was said of it (`stages.alarm`)"""
        self._prompts: dict[str, list[Group]] = {}
        self._held: _Held | None = None
        self._leader = leader

    @cached_property
    def task(self) -> Task:
        from reasonloop.tasks import load_task

        return load_task(self.recipe.task.name, self.recipe.task.options)

    @cached_property
    def problems(self) -> dict[str, list[Problem]]:
        """By split; probe and test cut to the recipe's sizes."""
        from reasonloop.tasks import task_problems

        sizes = {"test": self.recipe.eval.problems}
        found: dict[str, list[Problem]] = {"train": [], "probe": [], "test": []}
        for problem in task_problems(self.task, self.recipe.task.name):
            found.setdefault(problem.split, []).append(problem)  # demonstrations, too
        return {split: problems[: sizes.get(split, 0) or None] for split, problems in found.items()}

    @cached_property
    def codec(self) -> Codec:
        """Of the model that the run began with, and so of all of its policies."""
        from reasonloop.policy.codec import Codec

        codec = Codec.load(self.recipe.model.source, self.recipe.model.trust_remote_code)
        codec.date = self.date
        return codec

    @cached_property
    def date(self) -> datetime.date:
        """What chat templates that write today's write, however long the run takes."""
        return date_of(self.recipe, self.folder.path)

    def prompts(self, split: str) -> list[Group]:
        """The split's problems with their prompts as tokens."""
        if split not in self._prompts:
            problems = self.problems[split]
            self._prompts[split] = [Group(problem, self.codec.encode_prompt(problem)) for problem in problems]
        return self._prompts[split]

    @cached_property
    def verifier(self) -> VerifierPool:
        """The pool of killable workers that judges this run's rollouts."""
        from reasonloop.tasks.show import verifier_pool

        chosen = self.recipe.task
        return verifier_pool(chosen.name, chosen.options, chosen.verify_deadline, chosen.verify_workers)

    @cached_property
    def rewards(self) -> RewardFunctions:
        """The reward functions of the recipe's own, in killable workers, too."""
        from reasonloop.rewards.functions import RewardFunctions

        chosen = self.recipe.task
        return RewardFunctions(self.recipe.rewards, chosen.verify_workers, chosen.verify_deadline)

    @cached_property
    def engine(self) -> Engine:
        """The sampling engine, with whatever weights were loaded last."""
        from reasonloop.engine.registry import engine_of

        engine = engine_of(self.recipe.engine)
        if self.ranks is None:
            return engine
        from reasonloop.ranks.doors import RanksEngine

        return RanksEngine(self.ranks, engine)

    @cached_property
    def ranks(self) -> Ranks | None:
        """The other ranks, which sample and learn with this process."""
        if self._leader is None:
            return None
        from reasonloop.ranks.doors import Ranks

        return Ranks(self._leader, self.recipe, self.threads)

    @property
    def world(self) -> int:
        """Ranks that work on it, this process among them"""
        return 1 if self._leader is None else 1 + len(self._leader.others)

    @property
    def threads(self) -> int:
        """CPU threads of this process, and of each rank: those that the run began with, but no more than there are for
        each."""
        return self.folder.threads if self._leader is None else min(self.folder.threads, available_cores())

    @cached_property
    def cluster(self) -> Cluster:
        """The Ray cluster that the recipe names. Raises InputError where there is none."""
        from reasonloop.runs.cluster import Cluster

        return Cluster(self.recipe.scale.address)

    @contextmanager
    def exploring(self, recipe: Recipe) -> Iterator[None]:
        """Works by another recipe, which differs in what one of several explorations side by side has otherwise."""
        own, self.recipe = self.recipe, recipe
        try:
            yield
        finally:
            self.recipe = own

    def sampler(self, sampling: Sampling) -> Sampler:
        """Makes this run's rollouts with whatever weights the engine has loaded."""
        from reasonloop.engine.sample import Sampler

        return Sampler(self.engine, self.codec, sampling, self.recipe.seed, self.verifier)

    @cached_property
    def store(self) -> TrajectoryStore:
        from reasonloop.store.segments import TrajectoryStore

        return TrajectoryStore(self.folder.path / "trajectories", self.folder.path.name, self.folder.ledger)

    def policy(self, source: str | Path) -> Policy:
        """The policy at `source`, on the device and in the dtype that the recipe asks for, to be read, not changed. It is
        loaded unless it is the one that was asked for last: that one stays in memory until then."""
        from reasonloop.policy.finite import NotFinite
        from reasonloop.policy.loading import resolve_device
        from reasonloop.policy.policy import Policy

        if self._held is None or not self._held.is_of(source):
            self._held = None
            gc.collect()  # a stage that has ended may hold its policy in a circle; two need not fit
            options = self.recipe.model
            try:
                device, trusted = resolve_device(options.device), options.trust_remote_code
                self.hold(source, Policy.load(source, device, options.dtype, trusted))
            except NotFinite as error:
                if not Path(source).is_relative_to(self.folder.path):
                    raise
                raise Diverged(str(error)) from error
            assert self._held is not None
        return self._held.policy

    def take_policy(self, source: str | Path) -> Policy:
        """The same to be changed: nobody else gets it any more."""
        policy, self._held = self.policy(source), None
        return policy

    def let_go(self) -> None:
        """No policy stays in memory, and nothing of the engine's: a GPU is free for others."""
        self._held = None
        if "engine" in self.__dict__:
            self.engine.close()  # the next load makes it anew
        gc.collect()
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def hold(self, source: str | Path, policy: Policy) -> None:
        """From now on `policy`, which has the weights at `source`, stands for it."""
        self._held = _Held(source, policy)

    def hold_trained(self, folder: Path, learner: Learner) -> None:
        """The same of what a stage has trained and saved, unless loading would make it another object: without its adapter,
        or out of training mode."""
        policy = learner.weights.policy
        if policy is not None and policy.adapter is None and not policy.model.training:
            self.hold(folder, policy)

    def learner(self, policy: Policy, sampling: Sampling, critic: Critic | None = None) -> Learner:
        """Trains the policy; `sampling` is the distribution that its log-probs are of."""
        from reasonloop.learner.local import LocalLearner

        recipe = self.recipe
        if self.ranks is not None:
            return self.ranks.learner(policy, sampling, critic)
        return LocalLearner(policy, recipe.optimizer, sampling, recipe.model.gradient_checkpointing, critic)

    # stopping

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM ask for a stop after the next checkpoint; a second one stops at once. Signals are the main
        thread's business: in another one they do what they did before."""
        before: dict[signal.Signals, Any] = {}

        def ask(number: int, frame: FrameType | None) -> None:
            self.stopping = True
            for known in before:
                signal.signal(known, signal.default_int_handler)
            self.progress.say("stopping after the next checkpoint; once more stops at once")

        main = threading.current_thread() is threading.main_thread()
        for number in (signal.SIGINT, signal.SIGTERM) if main else ():
            before[number] = signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop_point(self) -> None:
        """A place where nothing unsaved is left: stops here if that was asked for."""
        if self.stopping:
            raise Stopped(str(self.folder.path))

    def close(self) -> None:
        for shared in SHARED:
            if shared in self.__dict__:
                self.__dict__[shared].close()
        self._held = None
        self.folder.close()


class _Held:
    """A policy in memory, and what it has the weights of."""

    def __init__(self, source: str | Path, policy: Policy) -> None:
        self.policy, self._fingerprint, self._source = policy, policy.fingerprint(), _identity(source)

    def is_of(self, source: str | Path) -> bool:
        """Whether it is, and neither has changed since."""
        return self._source == _identity(source) and self._fingerprint == self.policy.fingerprint()


def _identity(source: str | Path) -> tuple[str, int]:
    """A checkpoint that is written anew is another folder of the same name."""
    path = Path(source)
    return str(source), path.stat().st_ino if path.exists() else 0
