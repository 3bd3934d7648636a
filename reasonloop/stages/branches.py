"""Explorations side by side, which start from one policy with luck of their own: one after the other, here."""

from __future__ import annotations

from dataclasses import replace

from reasonloop.config import dealt
from reasonloop.records import Place
from reasonloop.runs.dry import RL_ROLLOUT
from reasonloop.runs.session import Session
from reasonloop.runs.stages import Arm, Budget, Explored, Source
from reasonloop.stages.common import spent_before
from reasonloop.stages.exploration import ExplorationState, explore


class BranchExplorer:
    def __init__(self, run: Session) -> None:
        self.run = run

    def explore(self, start: Source, place: Place, arm: Arm, budget: Budget) -> Explored:
        """See `Explorer.explore`. A branch that was done isn't made again; its policy goes when it is."""
        run, whole = self.run, self.run.folder.checkpoint(place)
        shares = dealt(budget.until, run.recipe.scale.branches, run.recipe.rl.rollouts_per_step)
        if not (whole.state() or {}).get("done"):
            before = spent_before(run, place)
            for number, until in enumerate(shares, 1):
                own = replace(place, branch=f"{place.branch}.{number}")
                checkpoint = run.folder.checkpoint(own)
                known = ExplorationState.of(checkpoint) or ExplorationState()
                run.progress.skip(known.rollouts * (RL_ROLLOUT if budget.learn else 1))
                explore(run, start, own, arm, replace(budget, until=until, before=before, beside=tuple(shares)))
                checkpoint.drop_policy()
            whole.skip({"rollouts": sum(shares), "done": True})
        return Explored(None, sum(shares))
