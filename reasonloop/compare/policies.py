"""What a finished run brings to a comparison: its evaluated policies, each with the recipe that it depends on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonloop import config
from reasonloop.config import flat, stored_recipe
from reasonloop.errors import InputError
from reasonloop.files import read_object
from reasonloop.report.run import Run, number, read_run

Point = tuple[float, float]

# How a run was executed and watched, not what it computes: two seeds of one arm may differ in it.
EXECUTION = {
    "seed", "threads", "processes", "checkpoint_seconds", "model.device", "model.gradient_checkpointing",
    "task.verify_workers", "optimizer.microbatch_tokens", "sampling.slots", "eval.explored", "rloop.vanilla",
    "rlsp.vanilla", "sft.before", "rl.keep_best",
}  # fmt: skip
PROBING = ("rl.probe_every", "eval.probe_problems", "eval.probe_samples")


@dataclass(frozen=True)
class Entry:
    """An evaluated policy of one run."""

    kind: str
    """"main", "explored", "vanilla", "early", "sft" or "base" """
    product: bool
    """Whether it is what the run was for, and so bears the run's NAME"""
    run: str
    """The run folder, as it was given"""
    seed: int
    rollouts: int
    """Training rollouts spent"""
    identity: Mapping[str, Any]
    """The recipe's options that it depends on, by dotted key"""
    samples: int
    drawn: Mapping[str, Any]
    """The distribution that they were drawn from: temperature, truncation, most tokens, stop tokens"""
    ids: tuple[str, ...]
    """Of the problems, sorted"""
    correct_P: NDArray[np.int64]
    """Right ones of `samples`, in the order of `ids`"""
    held_out: tuple[Point, ...]
    """(rollouts spent, test avg@n) of the policies on the way to it"""
    probes: tuple[Point, ...]
    """(rollouts spent, avg on the probe problems) during its training"""


def read_finished(folder: Path) -> Run:
    """The run in `folder`. InputError where there is none, or it isn't finished, or its recipe can't be read."""
    if not (folder / "config.toml").is_file():
        raise InputError(f"{folder}: no run folder (no config.toml in it); expected a finished run")
    run = read_run(folder)
    if not run.config:
        raise InputError(f"{folder / 'config.toml'}: cannot be read as a recipe")
    for path in sorted((folder / "evals").glob("*.json")):
        read_object(path)  # a damaged one must not leave its arm out
    state = folder / "state.json"
    stage = read_object(state).get("stage") if state.is_file() else None
    if stage != "done":
        raise InputError(
            f"{folder}: not finished (it is at {stage or 'its start'}); expected a finished run: "
            f"`reasonloop run RECIPE.toml --out {folder}` goes on with it"
        )
    return run


def entries(run: Run, every: bool = False) -> list[Entry]:
    """A run's product, its base, the SFT policy that RL started from, and vanilla RL, where there are such; with `every`
    also RLoop's last explored policy.

    InputError where the product has no evaluation.
    """
    options = _options(run)
    own = [e for e in run.results if run.series(e) in ("main", "vanilla", "sft") and _main(e)]
    stage = {"rloop": "rft", "rl": "explore", "sft": "sft"}.get(run.method)
    products = [e for e in own if e.get("stage") == stage or stage is None]
    if run.method == "rloop":  # an earlier iteration's policy must not stand for the run
        least = int(options.get("rloop.iterations", 1)) - 1  # adaptive explorations may leave rollouts for more
        products = [e for e in products if int(e.get("iteration") or 0) >= least]
    if not products:
        raise InputError(f"{run.folder}: its product has no evaluation in {run.folder / 'evals'}; expected one")
    kind = {"rl": "vanilla", "sft": "sft"}.get(run.method, "main")
    chosen: list[tuple[str, Mapping[str, Any]]] = [(kind, products[-1])]
    chosen += [("base", e) for e in run.results if run.series(e) == "base"][-1:]
    chosen += [("vanilla", e) for e in run.results if e.get("branch") == "vanilla"][-1:]
    chosen += [("early", e) for e in run.results if e.get("branch") == "early"][-1:]
    if run.method != "sft":
        chosen += [("sft", e) for e in own if e.get("stage") == "sft"][-1:]
    if every and run.method == "rloop":
        chosen += [("explored", e) for e in own if e.get("stage") == "explore"][-1:]
    return [
        _entry(run, kind, evaluation, _identity(options, kind), evaluation is products[-1])
        for kind, evaluation in chosen
    ]


def _main(evaluation: Mapping[str, Any]) -> bool:
    return evaluation.get("branch") not in ("vanilla", "early")


def _entry(run: Run, kind: str, evaluation: Mapping[str, Any], identity: Mapping[str, Any], product: bool) -> Entry:
    where = f"{run.folder / 'evals' / str(evaluation.get('name'))}.json"
    try:
        counted = sorted((str(p["id"]), int(p["n"]), int(p["correct"])) for p in evaluation["problems"])
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{where}: expected problems, each with id, n and correct") from None
    ids, ns = tuple(row[0] for row in counted), {row[1] for row in counted}
    if len(ns) != 1 or len(set(ids)) != len(ids) or any(not 0 <= c <= n for _, n, c in counted):
        raise InputError(
            f"{where}: expected every problem once, with the same number of samples n, correct <= n of them"
        )
    return Entry(
        kind=kind,
        product=product,
        run=str(run.folder),
        seed=int(run.config.get("seed", 0)),
        rollouts=int(number(evaluation, "rollouts") or 0),
        identity=identity,
        samples=ns.pop(),
        drawn={key: value for key, value in (evaluation.get("sampling") or {}).items() if key != "slots"},
        ids=ids,
        correct_P=np.array([row[2] for row in counted], dtype=np.int64),
        held_out=_held_out(run, kind),
        probes=_probes(run, kind),
    )


def _options(run: Run) -> dict[str, Any]:
    """The recipe by dotted key, with defaults where an older version's file lacks a key."""
    table = stored_recipe(run.config)
    with suppress(InputError):  # another version's recipe: its options count as they stand
        table = config.parse(json.loads(json.dumps(table, default=str)), [], "").model_dump(mode="json")
    return flat(table)


def _identity(options: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The options that a policy of this kind depends on: vanilla RL is the same arm whatever method it stands beside."""
    method = str(options.get("method", "rloop"))
    first = options.get("sft.before")  # whether SFT came first; unset: RLSP does it
    used = {"model", "task"} | (set() if kind == "base" else {"sampling"})  # what the base was evaluated at is `drawn`
    if kind == "sft" or (kind != "base" and (method == "rlsp" if first is None else first)):
        used |= {"optimizer", "sft"}
    if kind not in ("base", "sft"):
        used |= {"optimizer", "rl"} | ({"ppo"} if options.get("rl.objective") == "ppo" else set())
        explored = options.get("exploration.form", "none") != "none"
        if explored and not (method == "rlsp" and kind in ("vanilla", "early")):
            used.add("exploration")
    if kind in ("main", "explored"):
        used |= {"", "rloop", "rft"} if method == "rloop" else {""}
    found = {}
    for key, value in options.items():
        section = key.partition(".")[0] if "." in key else ""
        if key in PROBING:
            steered = kind == "early" or (kind in ("main", "explored") and options.get("rloop.adaptive"))
            if steered:  # what the probe says ends explorations
                found[key] = value
        elif key not in EXECUTION and section in used:
            found[key] = value
    if kind in ("vanilla", "early") and method == "rloop" and "rl.steps" in found:
        found["rl.steps"] = found["rl.steps"] * options.get("rloop.iterations", 1)
    return found


def _held_out(run: Run, kind: str) -> tuple[Point, ...]:
    start = [e for e in run.results if run.series(e) == "base"]
    start += [e for e in run.results if e.get("stage") == "sft"]
    if kind in ("base", "sft", "early"):
        return ()
    if kind == "vanilla" and run.method == "rloop":
        own = [e for e in run.results if e.get("branch") == "vanilla"]
    else:
        skipped = {"main": "explore", "explored": "rft"}.get(kind) if run.method == "rloop" else None
        own = [e for e in run.results if _main(e) and e.get("stage") not in (skipped, "base", "sft")]
    points = {}
    for evaluation in [*start[-1:], *own]:
        value = _average(evaluation.get("metrics", {}))
        if value is not None:
            points[number(evaluation, "rollouts") or 0.0] = value
    return tuple(sorted(points.items()))


def _probes(run: Run, kind: str) -> tuple[Point, ...]:
    if kind in ("base", "sft", "early"):
        return ()
    branch = "vanilla" if kind == "vanilla" and run.method == "rloop" else "main"
    shared = max((number(line, "rollouts") or 0.0 for line in run.shared), default=0.0)
    points = {}
    for line in run.stage("probe"):
        spent, value = number(line, "rollouts"), _average(line)
        common = branch == "vanilla" and not line.get("iteration") and spent is not None and spent <= shared
        if spent is not None and value is not None and (line.get("branch", "main") == branch or common):
            points[spent] = value
    return tuple(sorted(points.items()))


def _average(metrics: Mapping[str, Any]) -> float | None:
    keys = [key for key in metrics if key.startswith("avg@")]
    value = metrics[keys[0]] if keys else None
    value = value.get("value") if isinstance(value, Mapping) else value
    return float(value) if isinstance(value, int | float) else None
