"""What a plan reckons with: each figure's lowest and highest value, and where it is from. Free of torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reasonloop.errors import InputError, first_line
from reasonloop.machine.devices import GPUS, Device, device_named
from reasonloop.own import nearest
from reasonloop.runs.clock import Rates
from reasonloop.runs.hours import OF_BANDWIDTH, OF_FLOPS, Guess, rates_of
from reasonloop.runs.needs import Plan

SHORT, LONG = 1 / 6, 1 / 2
"""A response's mean length of `sampling.max_tokens`, where nobody says"""
TAUGHT = 0.45
"""Share of the groups with unequal rewards, at least: what the bundled model's runs have (benchmarks/step.py)"""
APART = 1.5
"""How many times faster or slower a GPU may be than what its data sheet is taken to give"""


@dataclass(frozen=True)
class Figure:
    """A number that hours depend on."""

    name: str
    low: float
    """Of the shorter plan"""
    high: float
    source: str
    show: Callable[[float], str] = lambda value: f"{value:,.0f}"


@dataclass(frozen=True)
class Case:
    """One end of what is expected of the work and of the devices."""

    guess: Guess
    rates: Rates


@dataclass(frozen=True)
class Figures:
    shorter: Case
    longer: Case
    said: tuple[Figure, ...]


def planned_device(plan: Plan) -> Device:
    """What `plan.device` names, with the memory that `plan.memory` gives it. Raises InputError for an unknown one."""
    options = plan.recipe.plan
    found = device_named(options.device)
    if found is None:
        names = [gpu.name for gpu in GPUS]
        raise InputError(
            f"plan.device = {options.device!r}: {nearest(options.device, names)}, whose data sheet is known here"
        )
    return replace(found, memory=round(options.memory * 1e9)) if options.memory else found


def figures_of(plan: Plan) -> Figures:
    """Raises InputError where the recipe's `[plan]` can't be."""
    device, options = planned_device(plan), plan.recipe.plan
    most = plan.recipe.sampling.max_tokens
    given = (
        options.response if isinstance(options.response, tuple) or options.response is None else (options.response,) * 2
    )
    low, high = given or (SHORT * most, LONG * most)
    if high > most:
        raise InputError(f"plan.response = {high:g}: expected no more than sampling.max_tokens = {most}")
    known = bool(options.bench) or (options.sampled is not None and options.trained is not None)
    shorter = Guess(low, TAUGHT, 1.0 if known else APART)
    longer = Guess(high, 1.0, 1.0 if known else 1 / APART)
    measured = _measured(plan) if options.bench else None
    cases = [Case(guess, _rates(plan, device, guess, measured)) for guess in (shorter, longer)]
    return Figures(*cases, tuple(_said(plan, device, *cases)))


def _rates(plan: Plan, device: Device, guess: Guess, measured: Rates | None) -> Rates:
    """The data sheet's, with what is known better in its place."""
    options, found = plan.recipe.plan, rates_of(plan, device, guess)
    if measured is not None:
        found = replace(measured, load=found.load, update=found.update, slots=found.slots)
    if (
        options.sampled is not None
    ):  # the tail stays the data sheet's: a step that few responses are in reads all weights
        own = min(found.step, found.slots / options.sampled / 2)
        found = replace(found, step=own, token=1 / options.sampled - own / found.slots)
    if options.trained is not None:
        found = replace(found, learned=1 / options.trained, tuned=found.tuned / found.learned / options.trained)
    return found


def _said(plan: Plan, device: Device, shorter: Case, longer: Case) -> list[Figure]:
    """The figures, with their sources, for the reader."""
    options = plan.recipe.plan
    sampled = [case.rates.slots / (case.rates.step + case.rates.slots * case.rates.token) for case in (shorter, longer)]
    trained = [1 / case.rates.learned for case in (shorter, longer)]
    sheet = f"assumed: {{:.0%}} of the {device.name}'s {{}} by its data sheet, {APART:g} times more or less (plan.{{}})"

    def source(key: str, share: float, what: str) -> str:
        if getattr(options, key) is not None:
            return f"given: plan.{key}"
        return f"measured: {options.bench}" if options.bench else sheet.format(share, what, key)

    length = "assumed: a sixth to a half of sampling.max_tokens (plan.response)"
    taught = "assumed: as in the bundled model's runs (benchmarks/step.py), or all"
    means, shares = zip(*((case.guess.mean, case.guess.taught) for case in (shorter, longer)), strict=True)
    return [
        Figure("a response's tokens, mean", *means, "given: plan.response" if options.response else length),
        Figure("responses that teach", *shares, taught, lambda value: f"{value:.0%}"),
        Figure("sampled tokens/s a device", *sampled, source("sampled", OF_BANDWIDTH, "bandwidth")),
        Figure("trained tokens/s a device", *trained, source("trained", OF_FLOPS, "FLOP/s")),
    ]


def rates_of_bench(result: dict[str, Any]) -> Rates:
    """What a result of `reasonloop bench` says of its device: decoding steps of its fewest and of its most responses at once
    lie on a line. Raises KeyError, TypeError, IndexError, ValueError or ZeroDivisionError for another file."""
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


GROUP = 8
"""Responses behind a prompt, in `reasonloop bench`"""


def _measured(plan: Plan) -> Rates:
    """Of the recipe's `plan.bench`. Raises InputError where it is no such file, or another model's."""
    file, cost = Path(plan.recipe.plan.bench), plan.shape.cost
    what = f"plan.bench = {str(file)!r}"
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
        rates, weights, name = rates_of_bench(result), int(result["model"]["weights"]), result["model"]["name"]
    except (OSError, ValueError, TypeError, LookupError, ZeroDivisionError) as error:
        raise InputError(
            f"{what}: {first_line(error)}; expected what reasonloop bench --json writes, with at least two sizes of --batch"
        ) from None
    if abs(weights - cost.body - cost.head) > 0.02 * weights:
        raise InputError(
            f"{what}: measured with {name}, {weights / 1e6:,.0f}M weights in matrix products; the recipe's model has "
            f"{(cost.body + cost.head) / 1e6:,.0f}M: expected a result of this model"
        )
    return rates
