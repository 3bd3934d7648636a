r"""Sets of real numbers: intervals, inequalities, x \in ..., unions, \mathbb{R} without points, brought to one form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from reasonloop.verify.maths.agree import agree, number
from reasonloop.verify.maths.forms import (
    REALS,
    Form,
    Interval,
    Operation,
    Part,
    Quantity,
    Set,
    Tuple,
    Union,
    Words,
)  # fmt: skip
from reasonloop.verify.maths.tokens import Unreadable
from reasonloop.verify.maths.tree import symbols
from reasonloop.verify.maths.value import context

MOST_SETS = 40
"""That are brought to one form"""


@dataclass(frozen=True)
class Reals:
    """Intervals in the order of the line that neither overlap nor touch; `extended` unless all are points."""

    intervals: tuple[Interval, ...]
    extended: bool


def reals_of(parts: Sequence[Part], joined: frozenset[str]) -> Reals | None:
    """The set that the elements describe together, or None if they aren't sets of real numbers.

    Inequalities that are joined by "or" hold one or the other, by "and" both; by a comma both if they can. Intervals side by
    side are a union, if they have nothing in common (else they are points).
    """
    if len({part.names for part in parts if part.names}) > 1 or len(parts) > MOST_SETS:
        return None
    sets = [_intervals(part.form) for part in parts]
    if not sets or any(found is None for found in sets):
        return None
    known = [found for found in sets if found is not None]
    if all(isinstance(part.form, Union) for part in parts):
        result = known[0]
        for found in known[1:]:
            both = _intersection(result, found)
            together = "or" not in joined and (bool(both) or "and" in joined)
            result = both if together else _union(result + found)
        return Reals(tuple(result), _extended(result))
    result = _union([interval for found in known for interval in found])
    if len(parts) > 1 and len(result) < sum(map(len, known)):
        return None
    return Reals(tuple(result), _extended(result))


def same_reals(a: Reals, b: Reals) -> bool:
    return len(a.intervals) == len(b.intervals) and all(
        (x.low_in, x.high_in) == (y.low_in, y.high_in) and agree(x.low, y.low) and agree(x.high, y.high)
        for x, y in zip(a.intervals, b.intervals, strict=True)
    )


def _extended(intervals: Sequence[Interval]) -> bool:
    return any(interval.low is not interval.high for interval in intervals) or not intervals


def _intervals(form: Form) -> list[Interval] | None:
    if isinstance(form, Union):
        ends = [end for interval in form.intervals for end in (interval.low, interval.high)]
        real = all(symbols(end) or _is_real(end, True) for end in ends)
        return _union(list(form.intervals)) if real else None
    if isinstance(form, Tuple):
        return _bracketed(form)
    if isinstance(form, Quantity):
        return None if form.units or not _is_real(form.tree) else [_point(form.tree)]
    if isinstance(form, Set):
        points = [_intervals(part.form) if isinstance(part.form, Quantity) else None for part in form.parts]
        if any(found is None for found in points):
            return None
        return _union([interval for found in points if found is not None for interval in found])
    if isinstance(form, Words):
        return {"reals": list(REALS.intervals), "none": []}.get(form.text)
    if isinstance(form, Operation):
        left, right = _intervals(form.left), _intervals(form.right)
        if left is None or right is None:
            return None
        if form.sign == "cup":
            return _union(left + right)
        return _intersection(left, right if form.sign == "cap" else _complement(right))
    return None


def _bracketed(form: Tuple) -> list[Interval] | None:
    """(a, b], [a, b), ]a, b[: as an interval."""
    if len(form.parts) != 2 or not all(isinstance(part.form, Quantity) and not part.names for part in form.parts):
        return None
    low, high = (part.form.tree for part in form.parts)  # type: ignore[union-attr]
    if symbols(low) | symbols(high):
        return [Interval(low, form.opening == "[", high, form.closing == "]")]
    if not (_is_real(low, True) and _is_real(high, True)) or not number(low) < number(high):
        return None
    return [Interval(low, form.opening == "[", high, form.closing == "]")]


def _is_real(tree: Any, infinite: bool = False) -> bool:
    if symbols(tree):
        return False
    try:
        found = number(tree)
    except Unreadable:
        return False
    return not hasattr(found, "_mpc_") and (infinite or not context(0).isinf(found))


def _point(tree: Any) -> Interval:
    return Interval(tree, True, tree, True)


def _union(intervals: list[Interval]) -> list[Interval]:
    """In order, and joined where they overlap or touch. Ends with variables only stand alone."""
    if any(symbols(end) for interval in intervals for end in (interval.low, interval.high)):
        return intervals
    if len(intervals) > MOST_SETS:
        raise Unreadable(f"a union of more than {MOST_SETS} intervals")
    kept = [i for i in intervals if i.low is i.high or number(i.low) < number(i.high)]
    found: list[Interval] = []
    for interval in sorted(kept, key=lambda i: (number(i.low), not i.low_in)):
        last = found[-1] if found else None
        if last is None or not _touch(last, interval):
            found.append(interval)
            continue
        a, b = number(last.high), number(interval.high)
        same = agree(last.high, interval.high)
        if same:
            found[-1] = replace(last, high_in=last.high_in or interval.high_in)
        elif b > a:
            found[-1] = replace(last, high=interval.high, high_in=interval.high_in)
    return found


def _touch(a: Interval, b: Interval) -> bool:
    if agree(a.high, b.low):
        return a.high_in or b.low_in
    return bool(number(b.low) < number(a.high))


def _complement(intervals: list[Interval]) -> list[Interval]:
    whole = REALS.intervals[0]
    low, low_in, found = whole.low, False, []
    for interval in intervals:
        if not agree(low, interval.low) or (low_in and not interval.low_in):
            found.append(_between(low, low_in, interval.low, not interval.low_in))
        low, low_in = interval.high, not interval.high_in
    if not agree(low, whole.high):
        found.append(_between(low, low_in, whole.high, False))
    return found


def _between(low: Any, low_in: bool, high: Any, high_in: bool) -> Interval:
    return _point(low) if low_in and high_in and agree(low, high) else Interval(low, low_in, high, high_in)


def _intersection(a: list[Interval], b: list[Interval]) -> list[Interval]:
    if any(symbols(end) for interval in a + b for end in (interval.low, interval.high)):
        raise Unreadable("sets with variables in their ends")
    found = []
    for x in a:
        for y in b:
            low = _later(x.low, x.low_in, y.low, y.low_in, 1)
            high = _later(x.high, x.high_in, y.high, y.high_in, -1)
            if agree(low[0], high[0]):
                if low[1] and high[1]:
                    found.append(_point(low[0]))
            elif number(low[0]) < number(high[0]):
                found.append(Interval(*low, *high))
    return _union(found)


def _later(a: Any, a_in: bool, b: Any, b_in: bool, sign: int) -> tuple[Any, bool]:
    if agree(a, b):
        return a, a_in and b_in
    return (a, a_in) if sign * number(a) > sign * number(b) else (b, b_in)
