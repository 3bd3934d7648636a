"""Brings run folders of earlier versions up to what this one reads.

They lack what a method now writes at birth: which arm an evaluation or a metrics line is of, what it is called, whether
it is the product, and what it depends on. All of this follows from the recipe: the method is run again without doing
anything, and its answers are added. Options that have gone or moved are dropped or moved in config.toml. Nothing else is
touched; a folder that has it all already is left alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reasonloop import config
from reasonloop.config import Recipe, Training, flat
from reasonloop.config.recipe import GONE
from reasonloop.errors import InputError
from reasonloop.files import lines_of, read_object, read_toml, write_atomically
from reasonloop.methods import method
from reasonloop.records import Place
from reasonloop.runs.dry import DryStages
from reasonloop.runs.stages import Arm, Budget, Examples, Explored, Source

Spent = Mapping[tuple[str, int], int]
"""Rollouts of each exploration, by branch and iteration"""


class Recorder(DryStages):
    """Keeps what the method says of every evaluation and stage."""

    def __init__(self, recipe: Recipe, spent: Spent | None = None) -> None:
        super().__init__(recipe)
        self.spent = spent or {}
        self.evaluations: dict[str, dict[str, Any]] = {}
        """By name"""
        self.keys: dict[tuple[str, int, str], dict[str, Any]] = {}
        """By branch, iteration and stage"""
        self.spends: dict[str, int] = {}
        """Rollouts spent by the policy of each evaluation, by name"""
        self.rollouts = 0
        """All that the run samples to train on"""

    def evaluate(self, policy: Source, name: str, place: Place, arm: Arm, **how: Any) -> Mapping[str, float]:
        self.evaluations[name] = {**arm.keys, "depends_on": arm.options(self.recipe)}
        self.spends[name] = how.get("rollouts", 0)
        return super().evaluate(policy, name, place, arm, **how)

    def explore(self, start: Source, place: Place, arm: Arm, budget: Budget) -> Explored:
        shared = {"shared_with": budget.shared_with.name} if budget.shared_with else {}
        self.keys[place.branch, place.iteration, "explore"] = {**arm.keys, **shared}
        before = self._spent.get(place.name, 0)
        found = super().explore(start, place, arm, budget)
        self.rollouts += self._spent.get(place.name, 0) - before
        until = min(budget.until, self.spent.get((place.branch, place.iteration), budget.until))
        return Explored(found.policy, until, found.best)

    def experts(self, place: Place, start: Source, arm: Arm) -> Examples:
        self.keys[place.branch, place.iteration, "select"] = arm.keys
        return super().experts(place, start, arm)

    def finetune(
        self,
        start: Source,
        place: Place,
        arm: Arm,
        examples: Callable[[], Examples],
        options: Training,
        epochs: float,
    ) -> Source:
        self.keys[place.branch, place.iteration, place.stage] = arm.keys
        return super().finetune(start, place, arm, examples, options, epochs)

    def of(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """What a line of metrics.jsonl lacks."""
        if line["stage"] == "eval":
            return {key: value for key, value in self.evaluations[line["name"]].items() if key != "depends_on"}
        stage = "explore" if line["stage"] in ("probe", "greedy") else line["stage"]
        return self.keys[line["branch"], line["iteration"], stage]


def recorded(recipe: Recipe, spent: Spent | None = None) -> Recorder:
    """The recipe's method, run without doing anything. `spent`: what explorations really spent, where some stop early."""
    found = Recorder(recipe, spent)
    method(recipe.method).run(found)
    return found


def brought_up(table: dict[str, Any]) -> dict[str, Any]:
    """A recipe of an earlier version, without the options that have gone."""
    told = flat(table)
    for key in GONE.keys() & told.keys():
        *sections, name = key.split(".")
        owner = table
        for section in sections:
            owner = owner[section]
        del owner[name]
    if told.get("sampling.slots", 256) != 256:  # 256 is what an unset one was, and is
        table["engine"] = {**table.get("engine", {}), "slots": told["sampling.slots"]}
    if told.get("rl.advantage") == "pass_k":
        table["rl"]["advantage"] = f"pass@{told['rl.pass_k']}"
    return table


def spent_in(lines: list[dict[str, Any]]) -> dict[tuple[str, int], int]:
    """From lines that count an arm's rollouts over all of its iterations."""
    last: dict[tuple[str, int], int] = {}
    for line in lines:
        if line["stage"] == "explore":
            last[line["branch"], line["iteration"]] = line["rollouts"]
    return {(branch, i): count - last.get((branch, i - 1), 0) for (branch, i), count in last.items()}


def upgrade(run: Path) -> None:
    """Brings the run folder up, where there is something to do."""
    evaluations = {path: read_object(path) for path in sorted((run / "evals").glob("*.json"))}
    if all("depends_on" in evaluation and "arm" in evaluation for evaluation in evaluations.values()):
        return
    table = read_toml(run / "config.toml")
    if "ran_on" not in table:
        raise InputError(f"{run / 'config.toml'}: no [ran_on]; expected a run's resolved recipe")
    ran_on = {"ran_on": table.pop("ran_on")}
    recipe = config.parse(brought_up(table), [], str(run / "config.toml"))
    lines = lines_of(run / "metrics.jsonl")
    found = recorded(recipe, spent_in(lines))
    for path, evaluation in evaluations.items():
        write_atomically(path, json.dumps(evaluation | found.evaluations[evaluation["name"]]) + "\n")
    write_atomically(run / "metrics.jsonl", "".join(json.dumps(line | found.of(line)) + "\n" for line in lines))
    write_atomically(run / "config.toml", config.dumps(recipe, ran_on))
