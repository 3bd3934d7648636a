"""Stored experts that join fresh groups (RLEP, arXiv 2507.07451): what earlier iterations have solved is met again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from reasonloop.learner.protocol import Learner
from reasonloop.records import Group, Place, Rollout
from reasonloop.runs.session import Session
from reasonloop.store.experts import distinct, expert_rollouts


class Replay:
    """The experts of the iterations before one, by problem. They are learned from, and never stored or counted again."""

    def __init__(self, run: Session, place: Place) -> None:
        recipe, folder = run.recipe, run.folder.path
        self.each = recipe.rloop.replay
        self.sampling = recipe.sampling
        before = [one for i in range(place.iteration) for one in expert_rollouts(recipe, folder, i)]
        self.stored: dict[str, list[Rollout]] = {}
        for rollout in distinct(before):
            self.stored.setdefault(rollout.problem_id, []).append(rollout)

    def join(self, groups: Sequence[Group], step: int) -> list[Group]:
        """The groups with `rloop.replay` experts of their problems each, or as many as there are; others the next step."""
        return [replace(group, rollouts=(*group.rollouts, *self._of(group.problem.id, step))) for group in groups]

    def _of(self, problem: str, step: int) -> list[Rollout]:
        known = self.stored.get(problem, [])
        return [known[(step * self.each + n) % len(known)] for n in range(min(self.each, len(known)))]

    def as_sampled(self, groups: Sequence[Group], fresh: int, learner: Learner) -> list[Group]:
        """The joined groups, whose experts (those behind `fresh` rollouts) have the learner's own log-probs in place of what
        sampled them: where an update begins, their ratio is 1, as a fresh rollout's is."""
        old = [rollout for group in groups for rollout in group.rollouts[fresh:]]
        found = iter(
            learner.score([(one.prompt_tokens, one.response_tokens) for one in old], self.sampling) if old else ()
        )
        return [
            replace(
                group,
                rollouts=(
                    *group.rollouts[:fresh],
                    *(replace(one, logprobs=next(found)) for one in group.rollouts[fresh:]),
                ),
            )
            for group in groups
        ]
