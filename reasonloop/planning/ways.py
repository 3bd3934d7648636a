"""An iteration on machines that aren't here: on one, on several side by side, and on machines that are taken away. Free of
torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from reasonloop.config import Recipe
from reasonloop.errors import InputError
from reasonloop.methods import checked_method
from reasonloop.methods import plan as planned
from reasonloop.planning.figures import Case
from reasonloop.runs import clock
from reasonloop.runs.clock import Parts
from reasonloop.runs.dry import Asked
from reasonloop.runs.hours import parts_of, seconds
from reasonloop.runs.needs import Plan

SIDE_BY_SIDE = 4
"""Machines that are planned beside a single one, where the recipe has no branches"""
UPLINK = 125e6
"""Bytes/s that the network is taken to have: 1 Gbit/s"""
NEW_MACHINE = 600.0
"""Seconds until another machine works in the place of one that was taken away"""
OUT, LOST = "weights to the machines", "lost with machines"


@dataclass
class Iteration:
    """What one asks for: explorations side by side, then the rest one after another."""

    explorations: list[Asked] = field(default_factory=list)
    rest: list[Asked] = field(default_factory=list)

    @property
    def rollouts(self) -> float:
        return sum(one.amount for one in self.explorations)

    @property
    def examples(self) -> float:
        """Of the fine-tuning, each as often as it is trained on"""
        return sum(one.amount for one in self.rest if one.kind == "finetune")

    @property
    def answers(self) -> float:
        """Of evaluations"""
        return sum(one.amount for one in self.rest if one.kind == "evaluate")


def iterations(stages: Sequence[Asked]) -> list[Iteration]:
    """Those of the method itself: what comes before the first one, and a baseline beside it, is left out."""
    found: list[Iteration] = []
    for one in stages:
        own = one.kind == "explore" and one.name.startswith("main")
        if own and (not found or found[-1].rest):
            found.append(Iteration())
        if own:
            found[-1].explorations.append(one)
        elif found and one.kind in ("evaluate", "finetune") and not one.name.startswith("vanilla"):
            found[-1].rest.append(one)
    return found


@dataclass(frozen=True)
class Way:
    """On what machines."""

    plan: Plan
    """Of the recipe with as many branches as there are machines"""
    machines: int = 1
    rate: float = 0.0
    """How often a machine is taken away, a second"""

    @property
    def title(self) -> str:
        return ("one machine" if self.machines == 1 else f"{self.machines} machines") + (", spot" if self.rate else "")

    @property
    def iteration(self) -> Iteration:
        return iterations(self.plan.stages)[0]

    def parts(self, case: Case) -> Parts:
        """Seconds of an iteration, by what takes them."""
        plan, own = self.plan, self.iteration
        explorations = [parts_of(plan, one, case.rates, case.guess) for one in own.explorations]
        if self.machines > 1:  # a branch writes no checkpoints
            explorations = [one | {"checkpoints": 0.0} for one in explorations]
        longest = max(explorations, key=clock.total)
        rest = seconds(plan, own.rest, case.rates, case.guess)
        found = clock.together(longest, rest)
        if self.machines > 1:
            found[OUT] = self.machines * plan.weights / UPLINK
        if self.rate:
            found[LOST] = self._lost([clock.total(one) for one in explorations], clock.total(rest))
        return found

    def _lost(self, explorations: Sequence[float], rest: float) -> float:
        """A branch begins anew; a run on one machine, and what follows the branches, goes on from its last checkpoint."""
        every = self.plan.recipe.checkpoint_seconds
        after = clock.since(rest, every, self.rate, NEW_MACHINE) - rest
        if self.machines == 1:
            (whole,) = explorations
            return after + clock.since(whole, every, self.rate, NEW_MACHINE) - whole
        return after + clock.last_of(explorations, self.rate, NEW_MACHINE) - max(explorations)


def ways(plan: Plan, sizes: Mapping[str, int]) -> list[Way]:
    """One machine, several side by side where the method can have them, and the same on machines that are taken away."""
    recipe = plan.recipe
    most = recipe.scale.branches if recipe.scale.branches > 1 else SIDE_BY_SIDE
    found = [way for machines in (1, most) if (way := _way(plan, machines, sizes)) is not None]
    rate = (recipe.plan.interruptions or 0.0) / 3600
    return found + [replace(way, rate=rate) for way in found if rate]


def _way(plan: Plan, machines: int, sizes: Mapping[str, int]) -> Way | None:
    recipe = _with_branches(plan.recipe, machines)
    try:
        checked_method(recipe, "plan")
    except InputError:  # it can't be in several branches
        return None
    return Way(replace(plan, recipe=recipe, stages=tuple(planned(recipe, sizes).stages)), machines)


def _with_branches(recipe: Recipe, branches: int) -> Recipe:
    return recipe.model_copy(update={"scale": recipe.scale.model_copy(update={"branches": branches})})
