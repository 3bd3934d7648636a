"""Who explores: here, or elsewhere. A door: nothing outside of it knows what is behind."""

from __future__ import annotations

from typing import Protocol

from reasonloop.records import Place
from reasonloop.runs.session import Session
from reasonloop.runs.stages import Arm, Budget, Explored, Source
from reasonloop.stages.branches import BranchesInTurn
from reasonloop.stages.exploration import explore
from reasonloop.stages.on_ray import BranchesOnRay
from reasonloop.stages.outside import CommandExplorer


class Explorer(Protocol):
    def explore(self, start: Source, place: Place, arm: Arm, budget: Budget) -> Explored:
        """See `Stages.explore`. The rollouts are in RUN/trajectories when it returns, as branch `place.branch` or as its
        twins ("main.1", ...), and the checkpoint of `place` says how many they are ("rollouts"; "done"). Explorers elsewhere
        hand back no policy."""
        ...


class ExplorerHere:
    def __init__(self, run: Session) -> None:
        self.run = run

    def explore(self, start: Source, place: Place, arm: Arm, budget: Budget) -> Explored:
        return explore(self.run, start, place, arm, budget)


def explorer_of(run: Session, arm: Arm) -> Explorer:
    """The one that the recipe chooses for the method's own arm. All others explore here."""
    if arm.name == "main" and run.recipe.explorer.command:
        return CommandExplorer(run)
    if arm.name == "main" and run.recipe.scale.branches > 1:
        return BranchesOnRay(run) if run.recipe.scale.address else BranchesInTurn(run)
    return ExplorerHere(run)
