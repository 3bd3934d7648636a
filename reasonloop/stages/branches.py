"""Explorations side by side: how an iteration's rollouts are dealt to them, what is known of each, and one after the other,
here, on this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reasonloop.config import dealt
from reasonloop.records import Place
from reasonloop.runs.checkpoints import Checkpoint
from reasonloop.runs.dry import RL_ROLLOUT
from reasonloop.runs.session import Session
from reasonloop.runs.stages import Arm, Budget, Explored, Source
from reasonloop.stages.common import spent_before
from reasonloop.stages.exploration import ExplorationState, explore

LINES = "lines.json"
"""In a branch's checkpoint: its metrics lines, from when it is done until they stand in metrics.jsonl"""


@dataclass(frozen=True)
class Branch:
    """One of several explorations side by side."""

    run: Session
    place: Place
    """The branch is "main.1", "main.2", ..."""
    budget: Budget

    @property
    def number(self) -> int:
        return self.place.twin[0]

    @property
    def checkpoint(self) -> Checkpoint:
        return self.run.folder.checkpoint(self.place)

    @property
    def state(self) -> ExplorationState:
        return ExplorationState.of(self.checkpoint) or ExplorationState()

    @property
    def left_behind(self) -> bool:
        return bool((self.checkpoint.state() or {}).get("left_behind"))

    @property
    def units(self) -> float:
        """Of the run's work, a rollout's"""
        return RL_ROLLOUT if self.budget.learn else 1.0

    def finish(self, state: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], left_behind: bool = False) -> None:
        """It isn't made again. Its lines wait until those before it stand in metrics.jsonl."""
        self.checkpoint.write(LINES, json.dumps(list(lines)) + "\n")
        self.checkpoint.skip({**state, "done": True, **({"left_behind": True} if left_behind else {})})

    def log_lines(self) -> None:
        """Puts the lines that wait into metrics.jsonl, where there are any; all but the state goes."""
        path = self.checkpoint.folder / LINES
        if path.is_file():
            self.unlog()
            for line in json.loads(path.read_text(encoding="utf-8")):
                self.run.folder.log(**line)
        self.checkpoint.drop_policy()

    def forget(self) -> None:
        """It is as if it had never been begun."""
        self.checkpoint.forget()

    def unlog(self, from_step: int = 0) -> None:
        for stage in ("explore", "probe"):
            where = {"stage": stage, "branch": self.place.branch, "iteration": self.place.iteration}
            self.run.folder.unlog(from_step=from_step or -1, **where)


class Branches:
    """The explorations side by side of an iteration."""

    def __init__(self, run: Session, place: Place, arm: Arm, budget: Budget) -> None:
        self.run, self.place, self.arm = run, place, arm
        self.whole = run.folder.checkpoint(place)
        shares = dealt(budget.until, run.recipe.scale.branches, run.recipe.rl.rollouts_per_step)
        own = replace(budget, kept=False, before=spent_before(run, place), beside=tuple(shares))
        self.each = [
            Branch(run, replace(place, branch=f"{place.branch}.{number}"), replace(own, until=share))
            for number, share in enumerate(shares, 1)
        ]

    @property
    def over(self) -> bool:
        return bool((self.whole.state() or {}).get("done"))

    def finish(self, **measured: Any) -> None:
        """All of them are done, or left behind: their number and what was spent are a line of metrics.jsonl."""
        spent = sum(branch.state.rollouts for branch in self.each)
        counts = {"branches": len(self.each), "left_behind": sum(branch.left_behind for branch in self.each)}
        where = replace(self.place, stage="branches").keys
        total = spent + (self.each[0].budget.before or 0)
        if counts["left_behind"]:  # the others counted what it would have spent beside them
            own = {(branch.place.branch, branch.place.iteration) for branch in self.each}

            def counted(line: dict[str, Any]) -> dict[str, Any]:
                ours = (line.get("branch"), line.get("iteration")) in own
                return {**line, "rollouts": min(line["rollouts"], total)} if ours else line

            self.run.folder.relog(counted)
        self.run.folder.unlog(from_step=-1, **where)
        self.run.folder.log(**where, **self.arm.keys, rollouts=total, **counts, **measured)
        self.whole.skip({"rollouts": spent, "done": True})

    def explored(self) -> Explored:
        return Explored(None, int((self.whole.state() or {})["rollouts"]))


class BranchesInTurn:
    """See `Explorer`: one after the other, here. Each is continued where it was; a finished one isn't made again."""

    def __init__(self, run: Session) -> None:
        self.run = run

    def explore(self, start: Source, place: Place, arm: Arm, budget: Budget) -> Explored:
        run, branches = self.run, Branches(self.run, place, arm, budget)
        if not branches.over:
            for branch in branches.each:
                run.progress.skip(branch.state.rollouts * branch.units)
                if not branch.state.done:
                    with run.exploring(run.recipe.of_branch(branch.number)):
                        explore(run, start, branch.place, arm, branch.budget)
                branch.log_lines()
            branches.finish()
        return branches.explored()
