"""An iteration's hours and cost on one machine, on several, and on machines that are taken away, as a table.

Free of torch."""

from __future__ import annotations

from collections.abc import Sequence

from reasonloop.planning.figures import Figures
from reasonloop.planning.ways import LOST, NEW_MACHINE, OUT, UPLINK, Way, iterations
from reasonloop.runs import clock
from reasonloop.runs.hours import DISK, SENT

NAME, CELL = 26, 18
"""Characters of a row's name and of its cells"""


def hours_table(chosen: Sequence[Way], figures: Figures) -> list[str]:
    """A row for each part, their sum, the run's, and what it costs; then the terms on which it stands."""
    parts = [[way.parts(case) for case in (figures.shorter, figures.longer)] for way in chosen]
    names = list(dict.fromkeys(name for each in parts for one in each for name, took in one.items() if took))
    names.sort(key=lambda name: name in (OUT, LOST))
    whole = [[clock.total(one) / 3600 for one in each] for each in parts]
    plan = chosen[0].plan
    runs, price = len(iterations(plan.stages)), plan.recipe.plan.price
    held = [[way.machines * plan.ranks * hours for hours in both] for way, both in zip(chosen, whole, strict=True)]
    rows = {name: [[one.get(name, 0.0) / 3600 for one in each] for each in parts] for name in names}
    rows |= {"together": whole, f"all {runs} iterations": _times(whole, runs), "device-hours, iteration": held}
    if price:
        rows |= {"cost, iteration": _times(held, price), f"cost, all {runs}": _times(held, runs * price)}
    return [
        _line("hours of an iteration:", [way.title for way in chosen]),
        *(_line(f"  {name}", [between(both) for both in cells]) for name, cells in rows.items()),
        *_terms(chosen),
        *_spot(chosen, held),
    ]


def _times(rows: Sequence[Sequence[float]], factor: float) -> list[list[float]]:
    return [[factor * value for value in both] for both in rows]


def _terms(chosen: Sequence[Way]) -> list[str]:
    """What the hours are reckoned with beside the figures above them."""
    recipe = chosen[0].plan.recipe
    price = recipe.plan.price
    found = [
        f"  price, given: {price:g} a device-hour, on spot, too; every machine is paid for until the iteration ends"
        if price
        else "  cost: not known (plan.price, of a device-hour)",
        f"  assumed: checkpoints, each {recipe.checkpoint_seconds:g} s, at {DISK / 1e9:g} GB/s of disk; a network of "
        f"{UPLINK * 8 / 1e9:g} Gbit/s",
    ]
    if recipe.engine.name == "vllm":
        found.append(f"  weights to vLLM at {SENT / 1e9:g} GB/s, as 0.6B on an H100 took (huggingface/trl #5892)")
    return found


def _spot(chosen: Sequence[Way], held: Sequence[Sequence[float]]) -> list[str]:
    recipe = chosen[0].plan.recipe
    if not any(way.rate for way in chosen):
        return ["  spot machines: not planned (plan.interruptions, of a machine in an hour)"]
    found = [
        f"  spot, given: a machine is taken away {recipe.plan.interruptions:g} times an hour; assumed: another one works "
        f"{NEW_MACHINE / 60:g} minutes later.",
        "    A branch begins anew; a run on one machine goes on from its last checkpoint, on a disk that outlives it",
    ]
    for way, both in zip(chosen, held, strict=True):
        if way.rate:
            firm = next(hours for one, hours in zip(chosen, held, strict=True) if _twins(one, way))
            shares = sorted(usual / spot for usual, spot in zip(firm, both, strict=True))
            said = " to ".join(dict.fromkeys(f"{share:.0%}" for share in shares))
            found.append(f"    {way.title}: pays where it costs less than {said} of the usual price")
    return found


def _twins(one: Way, other: Way) -> bool:
    return one.machines == other.machines and not one.rate


def _line(name: str, cells: Sequence[str]) -> str:
    return f"{name:{NAME}}" + "".join(f"{cell:>{CELL}}" for cell in cells)


def between(both: Sequence[float]) -> str:
    """Two ends, or one number where they are the same to what is shown."""
    low, high = (rounded(value) for value in sorted(both))
    return low if low == high else f"{low} to {high}"


def rounded(value: float) -> str:
    """To about two digits; "0" is nothing at all."""
    if not value:
        return "0"
    return (
        f"{value:,.0f}"
        if value >= 20
        else f"{value:.1f}"
        if value >= 1
        else f"{value:.2f}"
        if value >= 0.01
        else "<0.01"
    )
