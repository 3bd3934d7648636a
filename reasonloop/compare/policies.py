"""What a finished run brings to a comparison: its evaluated policies, each with the recipe that it depends on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonloop.errors import InputError
from reasonloop.evaluation.spread import rights_of
from reasonloop.evaluation.table import STARTS, arm_of, arms_of, reported, trunk_of
from reasonloop.files import read_object
from reasonloop.report.run import RunData, number, read_run
from reasonloop.runs.folder import evaluations_in, metrics_in

Point = tuple[float, float]

# How a run was executed and watched, not what it computes: two seeds of one arm may differ in it.
EXECUTION = {
    "seed", "threads", "checkpoint_seconds", "keep_checkpoints", "model.device", "model.gradient_checkpointing",
    "task.verify_workers", "optimizer.microbatch_tokens", "sampling.slots", "eval.explored", "eval.stops",
    "rloop.vanilla", "rlsp.vanilla", "sft.before", "rl.keep_best",
}  # fmt: skip
LATER = {"optimizer.state": "float32", "optimizer.offload": False}
"""Options that came later, and what runs before had"""
PROBING = ("rl.probe_every", "eval.probe_problems", "eval.probe_samples")


@dataclass(frozen=True)
class Stop:
    """An evaluated policy on the way to another, or what that began with."""

    rollouts: float
    """Spent by then"""
    correct_P: NDArray[np.int64]
    """Right ones of as many samples as the last one has, in the order of its problems"""
    right_PN: NDArray[np.bool_] | None
    """Which of the samples they are; None where an earlier version made the evaluation"""


@dataclass(frozen=True)
class Entry:
    """An evaluated policy of one run."""

    arm: str
    """"main", "explored", "vanilla", "early", "sft" or "base"; of averages "main x 0.5" and the like"""
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
    way: tuple[Stop, ...]
    """What it began with and the policies on the way to it, itself the last; none for averages, and for those that were
    chosen"""
    probes: tuple[Point, ...]
    """(rollouts spent, avg on the probe problems) during its training"""


def read_finished(folder: Path) -> RunData:
    """The run in `folder`. InputError where there is none, or it isn't finished, or its recipe can't be read."""
    if not (folder / "config.toml").is_file():
        raise InputError(f"{folder}: no run folder (no config.toml in it); expected a finished run")
    run = read_run(folder)
    if not run.config:
        raise InputError(f"{folder / 'config.toml'}: cannot be read as a recipe")
    evaluations_in(folder), metrics_in(folder)  # a damaged one must not leave its arm out
    state = folder / "state.json"
    stage = read_object(state).get("stage") if state.is_file() else None
    if stage != "done":
        raise InputError(
            f"{folder}: not finished (it is at {stage or 'its start'}); expected a finished run: "
            f"`reasonloop run RECIPE.toml --out {folder}` goes on with it"
        )
    return run


def entries(run: RunData, every: bool = False) -> list[Entry]:
    """A run's product, its base, the SFT policy that RL started from, and vanilla RL, where there are such; with `every`
    also RLoop's last explored policy.

    InputError where the product has no evaluation.
    """
    results = reported(run.evals)
    products = [e for e in results if e.get("product")]
    if run.imported and not products:
        raise InputError(
            f"{run.folder}: imported without an evaluation; expected one: `reasonloop import --eval` takes a trainer's own"
        )
    if not any("arm" in e for e in results):
        raise InputError(
            f"{run.folder}: made by an earlier version, which did not write what its evaluations are; expected a run of "
            "this one, or one that evidence/upgrade.py has brought up"
        )
    if not products:
        raise InputError(f"{run.folder}: its product has no evaluation in {run.folder / 'evals'}; expected one")
    last = {arm_of(e): e for e in results}
    averages = [arm for arm in last if arm != trunk_of(arm)]
    wanted = ("base", "vanilla", "early", "sft", "main", *(("explored",) if every else ()), *averages)
    chosen = [products[-1], *(last[arm] for arm in wanted if arm in last and last[arm] is not products[-1])]
    return [_entry(run, evaluation, evaluation is products[-1]) for evaluation in chosen]


def identity_of(arm: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Of the options that a policy depends on those that set arms apart: how a run was executed and watched doesn't. An
    unset one is as one that a run of an earlier version didn't know."""
    # What the probe says counts where it ends explorations.
    passed_over = EXECUTION.union(() if arm == "early" or options.get("rloop.adaptive") else PROBING)
    known = {key: value for key, value in options.items() if key not in passed_over and value is not None}
    return {key: value for key, value in known.items() if key not in LATER or value != LATER[key]}


def _entry(run: RunData, evaluation: Mapping[str, Any], product: bool) -> Entry:
    where, arm = f"{run.folder / 'evals' / str(evaluation.get('name'))}.json", arm_of(evaluation)
    ids, samples, correct_P, _ = _counts(where, evaluation)
    options = evaluation.get("depends_on")
    if not isinstance(options, Mapping):
        raise InputError(
            f"{where}: doesn't say what its policy depends on; expected a run of this version of reasonloop"
        )
    starts = [e for e in run.results if arm_of(e) in STARTS]
    way = [*starts[-1:], *(e for e in run.results if arm_of(e) == arm)]
    trained = "main" if arm == "explored" else trunk_of(arm)  # explored policies are on the way of their method's arm
    return Entry(
        arm=arm,
        product=product,
        run=str(run.folder),
        seed=int(run.config.get("seed", 0)),
        rollouts=int(number(evaluation, "rollouts") or 0),
        identity=identity_of(arm, options),
        samples=samples,
        drawn={key: value for key, value in (evaluation.get("sampling") or {}).items() if key != "slots"},
        ids=ids,
        correct_P=correct_P,
        way=_way(run, way if arm == trunk_of(arm) != "early" else (), ids, samples),
        probes=_curve(line for line in run.stage("probe") if trained in arms_of(line)),
    )


def _counts(
    where: str, evaluation: Mapping[str, Any]
) -> tuple[tuple[str, ...], int, NDArray[np.int64], NDArray[np.bool_] | None]:
    """The problems' ids in order, the samples of each, how many were right, and which."""
    try:
        rows = sorted((str(p["id"]), int(p["n"]), int(p["correct"])) for p in evaluation["problems"])
        ids, counts, ns = tuple(row[0] for row in rows), [row[2] for row in rows], {row[1] for row in rows}
        right, samples = rights_of(evaluation["problems"]), max(ns)
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{where}: expected problems, each with id, n and correct") from None
    if len(ns) != 1 or len(set(ids)) != len(ids) or any(not 0 <= c <= samples for c in counts):
        raise InputError(
            f"{where}: expected every problem once, with the same number of samples n, correct <= n of them"
        )
    if right is not None and right.sum(axis=1).tolist() != counts:
        raise InputError(
            f"{where}: which samples are right and how many disagree; expected them to be of one evaluation"
        )
    return ids, samples, np.array(counts, dtype=np.int64), right


def _way(
    run: RunData, evaluations: Iterable[Mapping[str, Any]], ids: tuple[str, ...], samples: int
) -> tuple[Stop, ...]:
    """By rollouts, of those that answered the same problems as often."""
    stops = {}
    for evaluation in evaluations:
        where = f"{run.folder / 'evals' / str(evaluation.get('name'))}.json"
        own_ids, own_samples, correct_P, right_PN = _counts(where, evaluation)
        if (own_ids, own_samples) == (ids, samples):
            spent = number(evaluation, "rollouts") or 0.0
            stops[spent] = Stop(spent, correct_P, right_PN)
    return tuple(stops[spent] for spent in sorted(stops))


def _curve(records: Iterable[Mapping[str, Any]]) -> tuple[Point, ...]:
    """(rollouts spent, average) of lines of metrics.jsonl, by rollouts."""
    points = {}
    for record in records:
        key = next((key for key in record if key.startswith("avg@")), "")
        value, spent = number(record, key), number(record, "rollouts")
        if spent is not None and value is not None:
            points[spent] = value
    return tuple(sorted(points.items()))
