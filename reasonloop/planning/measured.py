"""What was measured on such a device: by `reasonloop bench`, or by a run's own steps. Free of torch."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from reasonloop.config import flat, stored
from reasonloop.errors import InputError, first_line
from reasonloop.runs import clock
from reasonloop.runs.clock import Rates
from reasonloop.runs.folder import metrics_in
from reasonloop.runs.hours import Guess, step_of
from reasonloop.runs.needs import Plan

GROUP = 8
"""Responses behind a prompt, in `reasonloop bench`"""
SETTLED = 1
"""First steps of a run that don't count: graphs are captured, files are read"""
SAME = ("model.path", "model.dtype", "sampling.", "engine.", "lora.", "rl.")
"""What a run must have as the recipe has it, so that its steps are those that are planned; but for how many"""
WRONG = (OSError, ValueError, TypeError, LookupError, ZeroDivisionError)


@dataclass(frozen=True)
class Measured:
    rates: Rates
    mean: float | None = None
    """Tokens of a response, and the share that teaches, where a run says them"""
    taught: float | None = None


def measured(plan: Plan, usual: Rates) -> Measured:
    """Of the recipe's `plan.measured`. `usual`: what a device is reckoned to do where it isn't told. Raises InputError where
    it is no such file, or of another model or recipe."""
    path = Path(plan.recipe.plan.measured)
    try:
        return _of_run(plan, path, usual) if path.is_dir() else _of_bench(plan, path, usual)
    except WRONG as error:
        raise InputError(
            f"plan.measured = {str(path)!r}: {first_line(error)}; expected what reasonloop bench --json writes, with "
            "several sizes of --batch, or the folder of a run of this recipe with some steps"
        ) from None


def rates_of_bench(result: dict[str, Any]) -> Rates:
    """What a result of `reasonloop bench` says of its device: decoding steps of its fewest and of its most responses at once
    lie on a line. Raises one of WRONG for another file."""
    rows = sorted(result["sampling"], key=lambda row: row["batch"])
    few, many = rows[0], rows[-1]
    took = [row["batch"] / row["decoded_per_second"] for row in (few, many)]
    token = max(0.0, (took[1] - took[0]) / (many["batch"] - few["batch"]))
    work = result["workload"]
    tokens = many["batch"] * work["response"]
    prompts = many["batch"] / (GROUP if many["batch"] % GROUP == 0 else 1) * work["prompt"]
    beside = tokens / many["tokens_per_second"] - tokens / many["decoded_per_second"]
    trained = {row["kind"]: 1 / row["tokens_per_second"] for row in result["training"]}
    return Rates(
        step=took[0] - token * few["batch"],
        token=token,
        prompt=max(0.0, beside / prompts),
        learned=trained["rl"],
        tuned=trained["sft"],
    )


def _of_bench(plan: Plan, file: Path, usual: Rates) -> Measured:
    result, cost = json.loads(file.read_text(encoding="utf-8")), plan.shape.cost
    rates, weights, name = rates_of_bench(result), int(result["model"]["weights"]), result["model"]["name"]
    if abs(weights - cost.body - cost.head) > 0.02 * weights:
        raise InputError(
            f"plan.measured = {str(file)!r}: measured with {name}, {weights / 1e6:,.0f}M weights in matrix products; the "
            f"recipe's model has {(cost.body + cost.head) / 1e6:,.0f}M: expected a result of this model"
        )
    return Measured(replace(rates, load=usual.load, update=usual.update, slots=usual.slots))


def _of_run(plan: Plan, folder: Path, usual: Rates) -> Measured:
    """From its steps' lines: all usual seconds times what makes a step of the simulator take as long as those did."""
    recipe, ranks = _recipe_of(plan, folder)
    lines = metrics_in(folder)
    steps = [line for line in lines if line["stage"] == "explore" and "sampling_seconds" in line][SETTLED:]
    if not steps:
        raise ValueError("no steps in it that count")
    mean = fmean(line["length"] for line in steps)
    taught = sum(line["groups_used"] for line in steps) / sum(line["groups_sampled"] for line in steps)
    rounds = sum(line["groups_sampled"] for line in steps) / recipe["rl.problems_per_step"]
    sampled = sum(line["sampling_seconds"] for line in steps) / rounds
    learned = sum(line["seconds"] - line["sampling_seconds"] for line in steps) / rounds
    parts = clock.step(step_of(plan, Guess(mean, taught)), replace(usual, load=0.0, update=0.0), ranks)
    faster, taking = sampled / parts["sampling"], learned / parts["learning"]
    rates = replace(
        usual,
        step=faster * usual.step,
        token=faster * usual.token,
        prompt=faster * usual.prompt,
        learned=taking * usual.learned,
        tuned=taking * usual.tuned,
        load=0.0,  # both are in what the steps took
        update=0.0,
    )
    return Measured(rates, mean, taught)


def _recipe_of(plan: Plan, folder: Path) -> tuple[dict[str, Any], int]:
    """A run's options by dotted key, and how many ranks worked on it. Raises InputError where it does other steps."""
    table = stored(folder)
    own, ours = flat(table), flat(plan.recipe.model_dump(mode="json", exclude_none=True))
    keys = [key for key in ours if key.startswith(SAME) and key != "rl.steps" and own.get(key) != ours[key]]
    if keys:
        raise InputError(
            f"plan.measured = {str(folder)!r}: a run with {keys[0]} = {own.get(keys[0])!r}, the recipe has "
            f"{ours[keys[0]]!r}; expected a run of this recipe"
        )
    return own, int(table.get("ran_on", {}).get("ranks", 1))
