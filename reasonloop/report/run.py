"""A run folder as the report sees it: whatever of it exists already, and what is missing."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reasonloop.errors import InputError
from reasonloop.evaluation.table import arm_of, label_of, split_of

SERIES = ("base", "sft", "vanilla", "early", "main")
METHODS = {"rloop": "RLoop", "rlsp": "RLSP", "rl": "vanilla RL", "sft": "SFT"}


@dataclass
class Run:
    """What a run folder holds, read leniently: a run that has just begun is a run, too."""

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    config_text: str = ""
    lines: list[dict[str, Any]] = field(default_factory=list)
    """Of metrics.jsonl, in order; a step that was done again after a kill counts once, as it was done last."""
    evals: list[dict[str, Any]] = field(default_factory=list)
    """Of evals/*.json, by rollouts spent"""
    missing: list[str] = field(default_factory=list)
    """What a reader would look for in the report and won't find, each as a sentence"""

    @property
    def method(self) -> str:
        return str(self.config.get("method", "rloop"))

    @property
    def results(self) -> list[dict[str, Any]]:
        """The evaluations on the split that results are reported on."""
        split = split_of(self.evals)
        return [e for e in self.evals if e.get("metrics") and e.get("split") in (split, None)]

    def option(self, section: str, key: str, default: Any = None) -> Any:
        """A value of the resolved recipe, or `default` where config.toml doesn't hold it."""
        table = self.config.get(section)
        return table.get(key, default) if isinstance(table, Mapping) else default

    def series(self, record: Mapping[str, Any]) -> str:
        """The plotted series of an evaluation or a metrics line: one of SERIES."""
        arm = arm_of(record)
        if arm == "main":
            return {"rl": "vanilla", "sft": "sft"}.get(self.method, "main")
        return arm

    def label(self, evaluation: Mapping[str, Any]) -> str:
        return label_of(evaluation, self.method)

    def name(self, series: str) -> str:
        """What a reader calls a series."""
        own = METHODS.get(self.method, self.method)
        known = {"base": "base", "sft": "SFT", "vanilla": "vanilla RL", "early": "vanilla RL, best on the probe"}
        return known.get(series, own)

    @property
    def shared(self) -> list[dict[str, Any]]:
        """RL steps that were done once for two arms: RLoop's first exploration, which vanilla RL went on from."""
        vanilla = [line for line in self.stage("explore") if line.get("branch") == "vanilla"]
        first = min((int(line.get("step") or 0) for line in vanilla), default=0)
        return [
            line
            for line in self.stage("explore")
            if line.get("branch") != "vanilla" and not line.get("iteration") and int(line.get("step") or 0) < first
        ]

    def rl_steps(self) -> dict[str, list[dict[str, Any]]]:
        """RL step lines by series, vanilla RL first, with the steps that it shares with RLoop in both."""
        found: dict[str, list[dict[str, Any]]] = {"vanilla": self.shared, "main": []}
        for line in self.stage("explore"):
            found.setdefault(self.series(line), []).append(line)
        return {series: lines for series, lines in found.items() if lines}

    def stage(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line.get("stage") == name]


def read_run(folder: Path) -> Run:
    """Read what there is of the run in `folder`.

    Unfinished and damaged pieces are left out and named in `missing`. InputError if the folder doesn't exist or holds
    nothing of a run at all.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such run folder")
    known = ("config.toml", "metrics.jsonl", "evals", "trajectories", "state.json")
    if not any((folder / name).exists() for name in known):
        raise InputError(f"{folder}: not a run folder: expected {', '.join(known[:3])} in it")
    run = Run(folder)
    try:
        run.config_text = (folder / "config.toml").read_text(encoding="utf-8")
        run.config = tomllib.loads(run.config_text)
    except (OSError, ValueError) as error:
        run.missing.append(f"The recipe: config.toml could not be read ({_reason(error)}).")
    damaged = 0
    for line in _json_lines(folder / "metrics.jsonl"):
        if line is None:
            damaged += 1
        else:
            run.lines.append(line)
    if damaged:
        run.missing.append(f"{damaged} damaged line{'s' * (damaged > 1)} of metrics.jsonl.")
    run.lines = _last_of_each(run.lines)
    for path in sorted((folder / "evals").glob("*.json")):
        try:
            evaluation = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(evaluation, dict):
                raise ValueError("no JSON object")
            run.evals.append({"name": path.stem, **evaluation})
        except (OSError, ValueError) as error:
            run.missing.append(f"The evaluation {path.name}: {_reason(error)}.")
    run.evals.sort(key=lambda e: (float(e.get("rollouts") or 0), float(e.get("iteration") or 0), str(e["name"])))
    if not run.stage("explore") and run.method != "sft":
        run.missing.append("Exploration: no RL step has been finished yet.")
    if run.method == "rloop" and not run.stage("rft"):
        run.missing.append("Fine-tuning on experts: not reached yet.")
    if not run.results:
        run.missing.append("Held-out results: nothing has been evaluated yet.")
    return run


def number(record: Mapping[str, Any], key: str) -> float | None:
    """A finite number of a metrics line, or None: a plot leaves a gap rather than draw what was not measured."""
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < float("inf") else None


def _json_lines(path: Path) -> Iterator[dict[str, Any] | None]:
    """Lines as objects, None for a damaged one; an unfinished last line is still being written, and is no damage."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.splitlines(keepends=True):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError:
            if line.endswith("\n"):
                yield None
            continue
        yield value if isinstance(value, dict) else None


def _last_of_each(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    kept: dict[tuple[Any, ...], dict[str, Any]] = {}
    for line in lines:
        address = tuple(line.get(key) for key in ("branch", "stage", "iteration", "step", "name", "split"))
        kept[address] = line
    return list(kept.values())


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
