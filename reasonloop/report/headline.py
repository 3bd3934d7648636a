"""The report's first sentences: who leads, by how much, and how surely."""

from __future__ import annotations

from dataclasses import dataclass

from reasonloop.analysis.arms import EvaluatedPolicy, on_shared_problems
from reasonloop.errors import InputError
from reasonloop.evaluation.bootstrap import difference
from reasonloop.evaluation.table import (
    PASSED,
    STARTS,
    Record,
    arm_of,
    label_of,
    metric_keys,
    result_rows,
    trunk_of,
    weighed,
)
from reasonloop.report.run import RunData


@dataclass(frozen=True)
class Lead:
    """How far one policy is ahead of another in a metric, over the problems that both have."""

    metric: str
    difference: float
    ci95: tuple[float, float]
    share: float
    """Of resamples of the problems in which the first one is ahead, ties counting half"""
    sign: int
    """1: ahead, -1: behind, by an interval that leaves out zero; 0: neither"""


def lead(a: Record, b: Record, key: str) -> Lead | None:
    """The lead of evaluation `a` over `b` in a column of the result table; None where they can't be compared: no problem in
    common, or too few samples."""
    metric = "avg" if key.startswith("avg@") else key
    try:
        own, other = on_shared_problems([EvaluatedPolicy.of(a), EvaluatedPolicy.of(b)], metric)
        found = difference(own[None], other[None])  # as `compare` does it, to the last digit
    except (InputError, KeyError, TypeError, ValueError):
        return None
    return Lead(key, found.absolute, found.ci95_absolute, found.probability, found.sign)


def headline(run: RunData) -> list[str]:
    """The sentences, none before two policies can be compared: the method's last policy against vanilla RL's, and against
    the policy that RL started from."""
    rows = [row for row in result_rows(run.evals) if row.get("problems") and not weighed(arm_of(row))]
    last = {arm_of(row): row for row in rows if arm_of(row) not in PASSED}
    start = next((last[arm] for arm in reversed(STARTS) if arm in last), None)
    trained = [row for arm, row in last.items() if arm not in STARTS]
    own = next((row for row in trained if row.get("product")), trained[-1] if trained else None)
    if own is None:
        return []
    how = arm_of(own).removeprefix(trunk_of(arm_of(own)))
    other = last.get(f"vanilla{how}") or last.get("vanilla")  # an average against an average
    sentences = []
    against = [row for row in (other, start) if row is not None and row is not own]
    for place, row in enumerate(against):
        sentences += _compared(run, own, row, first=not place)
    if not sentences:
        return []
    so_far = "" if run.done else "So far: "
    seeds = (
        "Intervals are 95\xa0%, over the problems of this one seed: another seed may turn out otherwise; "
        "`reasonloop compare` takes runs of several."
    )
    return [so_far + sentences[0], *sentences[1:], seeds]


def _compared(run: RunData, own: Record, other: Record, *, first: bool) -> list[str]:
    keys = [key for key, _ in metric_keys(result_rows(run.evals))]
    chosen = [*keys[:1], *[key for key in keys[1:] if key.startswith("pass@")][-1:]]
    leads = [found for key in chosen if (found := lead(own, other, key)) is not None]
    if not leads:
        return []
    spent = [float(row.get("rollouts") or 0) for row in (own, other)]
    unequal = arm_of(other) not in STARTS and abs(spent[0] - spent[1]) > 0.02 * max(spent)
    after = f", after {spent[0]:,.0f} rollouts against {spent[1]:,.0f}" if unequal else ""
    name, rival = _named(run, own), _named(run, other)
    certain = any(found.sign for found in leads)
    told = " and ".join(_told(found, rival if certain and found is leads[0] else "") for found in leads)
    if certain:
        return [f"{name if first else 'It'} is {told}{after}."]
    return [f"{name} and {rival} can't be told apart: {name} is {told}{after}."]


def _named(run: RunData, row: Record) -> str:
    if label_of(row) == "base":
        return "the base"
    return run.name(arm_of(row)) if run.done else label_of(row)


def _told(found: Lead, rival: str) -> str:
    """ "ahead of the base by 0.062 in the average (in 98 % of resamples, interval above zero)"; perhaps without rival."""
    name = "the average" if found.metric.startswith("avg@") else found.metric
    if abs(found.difference) < 0.0005:
        return f"level {f'with {rival} ' if rival else ''}in {name}"
    way, part = ("ahead", found.share) if found.difference > 0 else ("behind", 1 - found.share)
    who = f" {'of ' if way == 'ahead' else ''}{rival}" if rival else ""
    sure = {1: "interval above zero", -1: "interval below zero", 0: "interval holds zero"}[found.sign]
    return f"{way}{who} by {abs(found.difference):.3f} in {name} (in {share(part)} of resamples, {sure})"


def share(value: float) -> str:
    """A share of resamples: "98 %"; the ends are never quite reached."""
    if value > 0.995:
        return "over 99\xa0%"
    return "under 1\xa0%" if value < 0.005 else f"{100 * value:.0f}\xa0%"
