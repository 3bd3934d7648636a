"""A run folder as the report sees it: whatever of it exists already, and what is missing."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reasonloop import config
from reasonloop.analysis.diagnosis import Evidence
from reasonloop.config import Recipe, flat, stored_recipe
from reasonloop.errors import InputError, RunError, first_line
from reasonloop.evaluation.table import ORDER, PASSED, arm_of, arms_of, label_of, reported, trunk_of, weighed
from reasonloop.files import read_object
from reasonloop.methods import Method, method
from reasonloop.written.digests import METRICS
from reasonloop.written.known import check

TRAINING = {"explore": "Exploration", "rft": "Fine-tuning on experts", "sft": "Supervised fine-tuning"}
"""Stages that train, and what a reader calls them"""

IMPORTED = (
    (
        "tokens",
        "UTF-8 bytes",
        "Token ids: its files have none and no model was named: lengths are counted in UTF-8 bytes.",
    ),
    ("logprobs", "none", "Log-probs: its trainer kept none, so that nothing is said of entropy, ratios and weights."),
)
"""Of an imported run what config.toml says, and what a reader then misses"""


@dataclass
class RunData:
    """What a run folder holds, read leniently: a run that has just begun is a run, too."""

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    config_text: str = ""
    lines: list[dict[str, Any]] = field(default_factory=list)
    """Of metrics.jsonl, in order, all with branch, iteration and step; a step that was done again after a kill counts once,
    as it was done last."""
    evals: list[dict[str, Any]] = field(default_factory=list)
    """Of evals/*.json, by rollouts spent"""
    missing: list[str] = field(default_factory=list)
    """What a reader would look for in the report and won't find, each as a sentence"""
    done: bool = False
    """Whether the run has come to its end"""
    progress: dict[str, Any] = field(default_factory=dict)
    """Of a run that goes on: progress.json"""

    @property
    def method(self) -> Method | None:
        """None where it is another version's, or code that isn't here"""
        try:
            return method(str(self.config.get("method", "")))
        except InputError:
            return None

    @property
    def title(self) -> str:
        """What a reader calls the method"""
        if self.imported:
            return f"Rollouts of {self.imported.get('trainer', 'another trainer')}"
        return self.method.title if self.method else str(self.config.get("method", "A run"))

    @property
    def imported(self) -> Mapping[str, Any]:
        """Of a run that was imported: where its rollouts are from"""
        found = self.config.get("imported")
        return found if isinstance(found, Mapping) else {}

    @property
    def results(self) -> list[Mapping[str, Any]]:
        """The evaluations on the split that results are reported on, averages with one weight left out."""
        return [e for e in reported(self.evals) if not weighed(arm_of(e))]

    @property
    def arms(self) -> list[str]:
        """Those that have RL steps or results, in the order of tables."""
        return _in_order([*self.rl_steps(), *map(arm_of, self.results)])

    def recipe(self) -> Recipe:
        """InputError where it can't be read, as another version's can't."""
        return config.parse(stored_recipe(self.config), [], "config.toml")

    def option(self, section: str, key: str, default: Any = None) -> Any:
        """A value of the resolved recipe, or `default` where config.toml doesn't hold it."""
        table = self.config.get(section)
        return table.get(key, default) if isinstance(table, Mapping) else default

    def name(self, arm: str) -> str:
        """What a reader calls an arm: the label that it was trained under, or else the one that its policies share."""
        own = [line for line in self.lines if line.get("stage") in TRAINING and arm_of(line) == arm]
        labels = {str(line["label"]) for line in own[-1:] if line.get("label")}
        labels = labels or {label_of(e) for e in self.results if arm_of(e) == arm}
        if len(labels) == 1:
            return labels.pop()
        return self.title if arm == "main" else f"{self.title}, {arm}" if arm in PASSED else arm

    def rl_steps(self) -> dict[str, list[dict[str, Any]]]:
        """RL step lines by arm, in the order of tables; steps that were done once for two arms are in both."""
        found: dict[str, list[dict[str, Any]]] = {}
        for line in sorted(self.stage("explore"), key=lambda line: (line["iteration"], line["step"], twin(line))):
            for arm in arms_of(line):
                found.setdefault(arm, []).append(line)
        return {arm: found[arm] for arm in _in_order(found)}

    def steps_behind(self, arm: str) -> list[dict[str, Any]]:
        """The arm's RL steps; of an arm that only names policies of another's training, those of their branch."""
        branches = {str(e.get("branch") or "main") for e in self.results if arm_of(e) == arm}
        return self.rl_steps().get(arm) or [line for line in self.stage("explore") if line["branch"] in branches]

    def branches(self) -> dict[str, str]:
        """The arm that each branch of the store belongs to; explorations side by side are one branch."""
        return {trunk(line): arm_of(line) for line in self.stage("explore")}

    def branch_names(self) -> dict[str, str]:
        """What a reader calls each branch of the store."""
        return {
            line["branch"]: self.name(arm_of(line)) + (f", branch {twin(line)}" if twin(line) else "")
            for line in self.stage("explore")
        }

    def stage(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line.get("stage") == name]

    def evidence(self) -> Evidence:
        """What a diagnosis is made from."""
        return Evidence(
            {self.name(arm): lines for arm, lines in self.rl_steps().items()},
            self.stage("select"),
            [e for e in self.evals if e.get("problems")],
            flat(stored_recipe(self.config)),
        )


def read_run(folder: Path) -> RunData:
    """Read what there is of the run in `folder`.

    Unfinished and damaged pieces are left out and named in `missing`. InputError if the folder doesn't exist or holds
    nothing of a run at all.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such run folder")
    known = ("config.toml", "metrics.jsonl", "evals", "trajectories", "state.json")
    if not any((folder / name).exists() for name in known):
        raise InputError(f"{folder}: not a run folder: expected {', '.join(known[:3])} in it")
    run = RunData(folder)
    try:
        run.config_text = (folder / "config.toml").read_text(encoding="utf-8")
        run.config = tomllib.loads(run.config_text)
    except (OSError, ValueError) as error:
        run.missing.append(f"The recipe: config.toml could not be read ({first_line(error)}).")
    run.missing += [f"The recipe: {error}." for error in _wrong(folder / "config.toml")]
    run.lines, damaged = _metrics(folder / METRICS)
    if damaged:
        run.missing.append(f"{damaged} damaged line{'s' * (damaged > 1)} of metrics.jsonl.")
    run.missing += [f"Lines of metrics.jsonl: {error}." for error in _wrong(folder / METRICS)]
    for path in sorted((folder / "evals").glob("*.json")):
        try:
            check(path)
            run.evals.append({"name": path.stem, **read_object(path)})
        except (InputError, RunError) as error:
            run.missing.append(f"An evaluation: {error}.")
    if len(run.evals) == len(list((folder / "evals").glob("*.json"))):
        run.missing += [f"An evaluation: {error}." for error in _wrong(folder / "evals")]
    run.evals.sort(key=lambda e: (float(e.get("rollouts") or 0), float(e.get("iteration") or 0), str(e["name"])))
    with suppress(InputError):
        run.done = bool(read_object(folder / "state.json").get("stage") == "done")
    with suppress(InputError):
        run.progress = read_object(folder / "progress.json")
    run.missing += [text for key, value, text in IMPORTED if run.imported.get(key) == value]
    for stage in run.method.stages if run.method and not run.done else ():
        if not run.stage(stage):
            run.missing.append(f"{TRAINING.get(stage, stage)}: nothing of it is finished yet.")
    if not run.results:
        run.missing.append("Held-out results: nothing has been evaluated yet.")
    return run


def _wrong(path: Path) -> list[str]:
    """What is wrong with a file, or a folder's files, of the run."""
    try:
        check(path)
    except RunError as error:
        return [str(error)]
    return []


def trunk(line: Mapping[str, Any]) -> str:
    """A line's branch without the number of one of several explorations side by side."""
    return str(line["branch"]).partition(".")[0]


def twin(line: Mapping[str, Any]) -> int:
    """The number of one of several explorations side by side; 0 for an only one."""
    found = str(line["branch"]).partition(".")[2]
    return int(found) if found.isdecimal() else 0


def number(record: Mapping[str, Any], key: str) -> float | None:
    """A finite number of a metrics line, or None: a plot leaves a gap rather than draw what was not measured."""
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < float("inf") else None


def _in_order(arms: Iterable[str]) -> list[str]:
    return sorted(dict.fromkeys(arms), key=lambda arm: ORDER.get(trunk_of(arm), len(ORDER)))


def _metrics(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The lines, and how many are damaged; an unfinished last line is still being written, and is no damage."""
    kept: dict[tuple[Any, ...], dict[str, Any]] = {}
    damaged = 0
    lines = path.read_bytes().split(b"\n") if path.is_file() else []
    for i, text in enumerate(lines, 1):
        try:
            line = json.loads(text)
            line["branch"] = str(line.get("branch") or "main")
            line |= {key: int(line.get(key) or 0) for key in ("iteration", "step")}
            kept[tuple(line.get(key) for key in ("branch", "stage", "iteration", "step", "name", "split"))] = line
        except (AttributeError, TypeError, ValueError, OverflowError):
            damaged += bool(text.strip()) and i < len(lines)
    return list(kept.values()), damaged
