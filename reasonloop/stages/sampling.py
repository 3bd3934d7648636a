"""One step's rollouts: sampled, judged, rewarded, and refilled where a group has no gradient."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from reasonloop.config import Sampling
from reasonloop.learner.batch import useful_groups
from reasonloop.learner.losses import Objective
from reasonloop.learner.protocol import Learner
from reasonloop.policy.policy import Policy
from reasonloop.records import Group, Place, Rollout
from reasonloop.rewards.exploration import ExplorationReward, alpha_at
from reasonloop.rewards.outcome import OwnReward, outcome_reward, own_reward, with_kl_penalty
from reasonloop.runs.session import Session
from reasonloop.stages.common import shuffled
from reasonloop.stages.replay import Replay


@dataclass
class Step:
    """What an RL step has sampled."""

    place: Place
    groups: list[Group] = field(default_factory=list)
    useful: list[Group] = field(default_factory=list)
    """Those that have a gradient, as many as a step learns from"""
    explored: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    """For each batch and refill: its groups, and what the rewards beside the outcome measured"""
    measured: dict[str, float] = field(default_factory=dict)
    """What learning from it measured"""
    seconds: float = 0.0
    """Of sampling"""
    mismatch: float | None = None
    """Of the engine's log-probs and the learner's, nats a token, before the step's first update"""

    @property
    def rollouts(self) -> list[Rollout]:
        return [rollout for group in self.groups for rollout in group.rollouts]

    def exploration(self) -> dict[str, float]:
        """The measurements of rewards beside the outcome over the step: sums of counts, means over groups of the rest."""
        totals: dict[str, list[tuple[int, float]]] = {}
        for size, metrics in self.explored:
            for name, value in metrics.items():
                totals.setdefault(name, []).append((size, value))
        return {
            name: sum(value for _, value in rows)
            if name.startswith(("left_out_groups", "judge_failures", "reward_failures"))
            else sum(size * value for size, value in rows) / sum(size for size, _ in rows)
            for name, rows in totals.items()
        }


@dataclass
class StepSampler:
    """Samples an exploration's steps from some problems, in shuffled passes over them."""

    run: Session
    learner: Learner
    objective: Objective
    prompts: Sequence[Group]
    reference: Policy | None
    """The policy that RL started from, where there is a KL"""
    explorer: ExplorationReward | None
    outcome: Callable[[Group], Group]
    """Fills a judged group's outcome rewards"""
    replay: Replay | None = None
    """Experts that join the groups"""
    until_right: int = 0
    """Right responses with which a problem is left out of further passes; 0: it never is"""
    right: Counter[str] = field(default_factory=Counter)
    """How many there are by now, by problem"""

    def sample(self, place: Place, position: int, spent: int, until: int, planned: int) -> tuple[Step, int]:
        """A batch of groups, and refills for those without a gradient (dynamic sampling); the position behind them in the
        endless order of problems.

        `spent`: rollouts so far, of `until`; `planned`: the steps that schedules reach to.
        """
        recipe = self.run.recipe
        options, step = recipe.rl, Step(place)
        alpha = alpha_at(recipe.exploration, spent / options.rollouts_per_step, planned)
        taken: set[int] = set()
        open_ones = self._open()
        self.run.engine.load(self.learner.weights)
        for _ in range(1 + options.refill_rounds):
            wanted = options.problems_per_step - len(self._useful(step))
            affordable = math.ceil((until - spent) / options.group_size) - len(step.groups)
            picked: list[int] = []
            while len(picked) < min(wanted, affordable) and len(taken) < len(open_ones):
                index = shuffled(position, len(self.prompts), recipe.seed, place)
                position += 1
                if (
                    index in open_ones and index not in taken
                ):  # a problem is in a step once, at the seam of two passes too
                    taken.add(index)
                    picked.append(index)
            if not picked:
                break
            self._sample([self.prompts[i] for i in picked], alpha, step)
        step.mismatch = getattr(self.run.engine, "mismatch", None)
        self.run.engine.rest()
        step.useful = self._useful(step)[: options.problems_per_step]
        if self.replay is not None:
            step.useful = self.replay.as_sampled(step.useful, options.group_size, self.learner)
        self.right.update(rollout.problem_id for rollout in step.rollouts if rollout.right)
        return step, position

    def _useful(self, step: Step) -> list[Group]:
        groups = step.groups if self.replay is None else self.replay.join(step.groups, step.place.step)
        return useful_groups(groups, self.objective)

    def _open(self) -> Collection[int]:
        """Which of the prompts a step may take."""
        every = range(len(self.prompts))
        if not self.until_right:
            return every
        found = {i for i in every if self.right[self.prompts[i].problem.id] < self.until_right}
        return found if len(found) >= self.run.recipe.rl.problems_per_step else every

    def _sample(self, prompts: Sequence[Group], alpha: float, step: Step) -> None:
        recipe = self.run.recipe
        sampled = self.run.sampler(recipe.sampling).sample(prompts, recipe.rl.group_size, step.place)
        groups = [self.outcome(group) for group in sampled]
        if self.explorer is not None and alpha < 1:
            groups, measured = self.explorer.reward(groups, alpha)
            step.explored.append((len(groups), measured))
        groups, measured = self.run.rewards.reward(groups, self.run.progress.say)
        step.explored.append((len(groups), measured))
        if self.reference is not None and recipe.rl.kl_in == "reward":
            groups = [
                with_kl_penalty(group, recipe.rl.kl_coef)
                for group in with_references(groups, self.reference, recipe.sampling)
            ]
        step.groups += groups


def with_references(groups: Sequence[Group], reference: Policy, sampling: Sampling) -> list[Group]:
    """The groups with the reference policy's log-probs."""
    found = iter(score(reference, [rollout for group in groups for rollout in group.rollouts], sampling))
    return [replace(group, reference=tuple(next(found) for _ in group.rollouts)) for group in groups]


def score(policy: Policy, rollouts: Sequence[Rollout], sampling: Sampling) -> list[np.ndarray]:
    """The policy's log-probs of the rollouts' responses, float32 [T] each."""
    return policy.score([r.prompt_tokens for r in rollouts], [r.response_tokens for r in rollouts], sampling)


def outcome_of(reward: str | OwnReward, overlong_buffer: int, max_tokens: int) -> Callable[[Group], Group]:
    """Fills a judged group's outcome rewards: of the verdict ("outcome"), or a function of the user's own."""
    own = own_reward(reward) if reward != "outcome" else None

    def outcome(group: Group) -> Group:
        rollouts = (
            outcome_reward(rollout, max_tokens, overlong_buffer, own(group.problem, rollout) if own else None)
            for rollout in group.rollouts
        )
        return replace(group, rollouts=tuple(rollouts))

    return outcome
