"""What a plan reckons with: each figure's lowest and highest value, and where it is from. Free of torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from reasonloop.errors import InputError
from reasonloop.machine.devices import GPUS, Device, device_named
from reasonloop.own import nearest
from reasonloop.planning.measured import Measured, measured
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
    ends: tuple[float, float]
    """Of the shorter plan, and of the longer one"""
    source: str
    show: Callable[[float], str]


@dataclass(frozen=True)
class Case:
    """One end of what is expected of the work and of the devices."""

    guess: Guess
    rates: Rates

    @property
    def sampled(self) -> float:
        """Tokens a second with all slots at work"""
        return self.rates.slots / (self.rates.step + self.rates.slots * self.rates.token)


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
    most, given = plan.recipe.sampling.max_tokens, options.expected
    usual = Guess(sum(given) / 2 if given else LONG * most)
    known = measured(plan, rates_of(plan, device, usual)) if options.measured else None
    if given is None:
        given = (known.mean, known.mean) if known and known.mean else (SHORT * most, LONG * most)
    if given[1] > most:
        raise InputError(f"plan.response = {given[1]:g}: expected no more than sampling.max_tokens = {most}")
    taught = (known.taught, known.taught) if known and known.taught else (TAUGHT, 1.0)
    reached = (1.0, 1.0) if known or (options.sampled and options.trained) else (APART, 1 / APART)
    cases = []
    for guess in map(Guess, given, taught, reached):
        rates = known.rates if known else rates_of(plan, device, guess)
        cases.append(Case(guess, _with_given(plan, rates)))
    return Figures(cases[0], cases[1], tuple(_said(plan, device, known, cases)))


def _with_given(plan: Plan, rates: Rates) -> Rates:
    """With what the recipe gives. The tail stays as it was: a step that few responses are in reads all weights."""
    options = plan.recipe.plan
    if options.sampled is not None:
        own = min(rates.step, rates.slots / options.sampled / 2)
        rates = replace(rates, step=own, token=1 / options.sampled - own / rates.slots)
    if options.trained is not None:
        rates = replace(rates, learned=1 / options.trained, tuned=rates.tuned / rates.learned / options.trained)
    return rates


def _said(plan: Plan, device: Device, known: Measured | None, cases: Sequence[Case]) -> list[Figure]:
    """The figures, with their sources, for the reader."""
    options = plan.recipe.plan
    by_run = known is not None and known.mean is not None

    def source(key: str, told: bool, otherwise: str) -> str:
        given = getattr(options, key, None) is not None
        return f"given: plan.{key}" if given else f"measured: {options.measured}" if told else f"assumed: {otherwise}"

    def sheet(key: str, share: float, what: str) -> str:
        how = f"{share:.0%} of the {device.name}'s {what} by its data sheet, {APART:g} times more or less (plan.{key})"
        return source(key, known is not None, how)

    length = source("response", by_run, "a sixth to a half of sampling.max_tokens (plan.response)")
    teach = source("", by_run, "as in the bundled model's runs (benchmarks/step.py), or all")

    def figure(
        name: str, of: Callable[[Case], float], source: str, show: Callable[[float], str] = "{:,.0f}".format
    ) -> Figure:
        return Figure(name, (of(cases[0]), of(cases[1])), source, show)

    return [
        figure("a response's tokens, mean", lambda case: case.guess.mean, length),
        figure("responses that teach", lambda case: case.guess.taught, teach, "{:.0%}".format),
        figure("sampled tokens/s a device", lambda case: case.sampled, sheet("sampled", OF_BANDWIDTH, "bandwidth")),
        figure("trained tokens/s a device", lambda case: 1 / case.rates.learned, sheet("trained", OF_FLOPS, "FLOP/s")),
    ]
