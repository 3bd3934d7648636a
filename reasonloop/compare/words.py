"""What a comparison says in words: its headline, and what its numbers and marks mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from reasonloop.compare.arms import Arms, ComparedArm
from reasonloop.compare.study import Comparison, asked_pairs, metrics_of, per_problem
from reasonloop.compare.tradeoff import Tradeoff, last_equal

ASCII = "-"
TYPESET = "−"
"""Signs for what is below zero: a terminal's, and a page's"""
CURVES = (
    "At equal averages: the mean of the first curve's pass@k less the second's, from the start's average to the highest "
    "that both reach; least: the smallest of it. Where a curve has an average twice, the better one counts."
)


def number(value: float, digits: int, minus: str = ASCII) -> str:
    """ "+0.123"; what rounds to zero has no sign."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", minus)


def percent(value: float | None, minus: str = ASCII) -> str:
    """ "+12.3"; "?" for a bound that there isn't."""
    return "?" if value is None else number(100 * value, 1, minus)


def share(probability: float) -> str:
    """ "98 %"; never "0 %" or "100 %", which so many resamples can't show."""
    if probability < 0.005:
        return "<1 %"
    return ">99 %" if probability >= 0.995 else f"{100 * probability:.0f} %"


def headline(arms: Sequence[ComparedArm], comparisons: Sequence[Comparison], minus: str = ASCII) -> list[str]:
    """Who leads, by how much, and how surely: a sentence for the average and one for the largest k.

    The arm that was named first against the best of the others; with a baseline the best arm against it. What merely stands
    beside a run, and what RL starts from, counts where there is nothing else.
    """
    metrics = metrics_of(arms[0].samples)
    sentences = []
    for metric in dict.fromkeys((metrics[0], metrics[-1])):
        pairs = [c for c in asked_pairs(arms, comparisons) if c.metric == metric]
        trained = [c for c in pairs if c.a.trained and c.b.trained] or pairs
        pairs = [c for c in trained if c.a.product and c.b.product] or trained
        if not pairs or metric == "pass@1":
            continue
        against_one = len({c.b.name for c in pairs}) == 1 and len(pairs) > 1  # a baseline
        best = max(pairs, key=lambda c: _mean(c, 0 if against_one else 1))
        others = f", the best of {len(pairs)} arms," if len(pairs) > 1 else ""
        names = (best.a.name + others * against_one, best.b.name + others * (not against_one))
        sentences.append(_sentence(best, names, minus) + _above(arms, best))
    return sentences


def traded(found: Tradeoff, minus: str = ASCII) -> list[str]:
    """How the first pair of curves over rollouts lie to each other, at equal averages and at equal rollouts."""
    pair = next(iter(found.equal), None)
    if pair is None:
        return []
    a, b = pair
    told = []
    if gap := found.gaps.get(pair):
        (lo, hi), (low, high) = gap["ci95"], gap["averages"]
        told.append(
            f"At equal averages, from {low:.3f} to {high:.3f}, pass@{found.k} of {a} less that of {b} is "
            f"{number(gap['gap'], 3, minus)} [{number(lo, 3, minus)}, {number(hi, 3, minus)}]."
        )
    if row := last_equal(found.equal[pair]):
        after, equals = f"{row['rollouts']:,.0f}", f"{row['equals']:,.0f} [{spent(row['ci95'])}]"
        there = ""
        if row["pass"] is not None:
            lo, hi = (number(bound, 3, minus) for bound in row["pass_ci95"])
            there = f", with {number(row['pass'], 3, minus)} [{lo}, {hi}] in pass@{found.k}"
        told.append(f"{a} after {after} rollouts has the average of {b} after {equals}{there}.")
    return told


def spent(bounds: Sequence[float | None]) -> str:
    """ "10,200, 14,000"; "?" for a bound beyond all that were spent."""
    return ", ".join("?" if bound is None else f"{bound:,.0f}" for bound in bounds)


def _sentence(c: Comparison, names: tuple[str, str], minus: str) -> str:
    a, b = names
    how = {1: f"{a} leads {b}", -1: f"{a} is behind {b}", 0: f"{a} and {b} can't be told apart"}[c.difference.sign]
    bounds = ", ".join(number(bound, 3, minus) for bound in c.difference.ci95_absolute)
    one = " (of one seed's problems: another seed may come out otherwise)" if len(c.seeds) == 1 else ""
    return (
        f"In {c.metric} {how.rstrip(',')}: {_mean(c, 0):.3f} against {_mean(c, 1):.3f}, "
        f"{number(c.difference.absolute, 3, minus)} [{bounds}]; {c.a.name} leads in "
        f"{share(c.difference.probability)} of resamples{one}."
    )


def _above(arms: Sequence[ComparedArm], c: Comparison) -> str:
    """A policy that RL starts from and that beats both."""
    starts = [arm for arm in arms if not arm.trained and arm not in (c.a, c.b)]
    mean, name = max(((float(per_problem(arm, c.metric).mean()), arm.name) for arm in starts), default=(0.0, ""))
    return f" {name}, from where RL starts, has {mean:.3f}." if mean > max(_mean(c, 0), _mean(c, 1)) else ""


def _mean(c: Comparison, side: int) -> float:
    return sum(pair[side] for pair in c.means) / len(c.means)


@dataclass(frozen=True)
class Legend:
    """What a table of differences says of its columns and marks."""

    columns: str
    lead: str
    """Of an interval that leaves out zero"""
    no_bound: str
    """Of a relative interval without one of its bounds"""
    no_relative: str

    def of(self, comparisons: Sequence[Comparison]) -> list[str]:
        """Of the marks those that are in a table of these."""
        found = [c.difference for c in comparisons]
        lines = [self.columns]
        if any(d.sign for d in found):
            lines.append(self.lead)
        if any(d.relative is not None and None in d.ci95 for d in found):
            lines.append(self.no_bound)
        if any(d.relative is None for d in found):
            lines.append(self.no_relative)
        return lines


def notes(found: Arms) -> list[str]:
    """What a reader must know to read the intervals right."""
    arms = found.arms
    problems, seeds = len(arms[0].entries[0].ids), {tuple(arm.seeds) for arm in arms}
    counts = [len(set(a.seeds) & set(b.seeds)) for a, b in combinations(arms, 2)] or [len(arms[0].seeds)]
    lines = [
        f"{problems} problems x {arms[0].samples} samples. 95 % intervals: of an arm's own results Wilson's, with problems "
        "and seeds as the independent units; of differences by bootstrap over seeds and problems, paired by both."
    ]
    if min(counts) == 1:
        lines.append(
            "Of pairs with one seed in common the intervals are over problems only: they say nothing of how another "
            "seed would come out."
        )
    if max(counts) > 1 and min(counts) < 5:
        lines.append("With fewer than 5 seeds the intervals are too narrow where seeds differ more than problems do.")
    if len(seeds) > 1:
        every = sorted({seed for arm in arms for seed in arm.seeds})
        short = [f"{arm.name} lacks {_list(sorted(set(every) - set(arm.seeds)))}" for arm in arms if arm.seeds != every]
        lines.append(f"Not every arm has every seed ({'; '.join(short)}): pairs are over the seeds that both have.")
    return [*lines, *found.notes]


def _list(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
