"""Whether two expressions have the same value, wherever their variables lie.

Exact where both are rational. Else both are evaluated to 40 and to 300 digits: the difference of equal values shrinks with
the rounding, that of others doesn't. Variables are given fixed positive values, then negative ones, which count where both
sides are real there. That can call two expressions equal which differ only in what no such point shows; none is known.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any

from reasonloop.verify.maths.tokens import Unreadable
from reasonloop.verify.maths.tree import Tree, has, symbols
from reasonloop.verify.maths.value import Undefined, Value, context, value

POINTS, NEGATIVE_POINTS, NEEDED = 6, 3, 3
Signs = tuple[int, ...] | int


def agree(a: Tree, b: Tree, signs: tuple[Signs, Signs] = (1, 1)) -> bool:
    r"""Whether the trees have the same value. `signs`: what \pm stands for in each. Raises Unreadable beyond bounds."""
    if a == b and signs[0] == signs[1]:
        return True
    names = symbols(a) | symbols(b)
    bases = (0, 10) if has(a, "fn", "log") or has(b, "fn", "log") else (0,)
    return any(_agree(a, b, signs, names, base) for base in bases)


def near(a: Tree, b: Tree) -> bool:
    """Whether one number may be an estimate of the other, to one digit at least."""
    if symbols(a) | symbols(b):
        return False
    ctx = context(0)
    x, y = (number(tree) for tree in (a, b))
    if ctx.isinf(x) or ctx.isinf(y):
        return bool(x == y)
    return bool(abs(x - y) <= max(abs(x), abs(y)) / 8)


def number(tree: Tree) -> Any:
    """A constant's value to 40 digits: mpf or mpc. Raises Unreadable."""
    ctx = context(0)
    found = value(tree, ctx, {})
    return ctx.mpf(found.numerator) / found.denominator if isinstance(found, Fraction) else found


def proportional(a: Tree, b: Tree, positive: bool = False) -> bool:
    """Whether a = k b with one constant k other than 0 (above 0, if `positive`), so that a = 0 and b = 0 say the same."""
    names = symbols(a) | symbols(b)
    ratio: Tree | None = None
    for at in _points(names, POINTS, 1):
        try:
            x, y = (value(tree, context(0), at) for tree in (a, b))
        except Undefined:
            continue
        if x == 0 or y == 0:
            return bool(x == y) and not names
        if isinstance(x, Fraction) and isinstance(y, Fraction):
            ratio = ("num", x / y, -1)
        else:
            ratio = None
        break
    if ratio is None:
        return _proportional(a, b, names, positive)
    return (not positive or ratio[1] > 0) and agree(a, ("*", ratio, b))


def straight(tree: Tree, name: str) -> tuple[Fraction, Fraction] | None:
    """(a, b) where the tree is a + b x with rational a and b, else None."""
    try:
        at = [value(tree, context(0), {name: Fraction(x)}) for x in (0, 1, 2, -3, Fraction(7, 3))]
    except Unreadable:
        return None
    if not all(isinstance(found, Fraction) for found in at):
        return None
    a, b = at[0], at[1] - at[0]
    fits = all(found == a + b * x for found, x in zip(at, (0, 1, 2, -3, Fraction(7, 3)), strict=True))
    return (a, b) if fits else None


def _proportional(a: Tree, b: Tree, names: frozenset[str], positive: bool) -> bool:
    """Where the ratio isn't rational at a point: a(p) b(q) = a(q) b(p) at all points."""
    points = list(_points(names, POINTS, 1))
    ctx = context(0)
    found = []
    for at in points:
        try:
            found.append([value(tree, ctx, at) for tree in (a, b)])
        except Undefined:
            continue
    if len(found) < NEEDED:
        return False
    x, y = found[0]
    if positive and not _real(x, y):
        return False
    if positive and (x > 0) != (y > 0):
        return False
    return all(_close(p * y, x * q) for p, q in found[1:])


def _close(a: Value, b: Value) -> bool:
    return bool(abs(a - b) <= max(abs(a), abs(b)) * Fraction(1, 10**30))


def _agree(a: Tree, b: Tree, signs: tuple[Signs, Signs], names: frozenset[str], base: int) -> bool:
    def pair(which: int, at: Mapping[str, Fraction]) -> tuple[Value, Value]:
        ctx = context(which)
        return value(a, ctx, at, signs[0], base), value(b, ctx, at, signs[1], base)

    if not names:
        try:
            return _same(pair(0, {}), lambda: pair(1, {}))
        except Undefined:
            return False
    complex_allowed = any(has(tree, "const", "i") for tree in (a, b))
    steps = any(has(tree, "fn", whole) for tree in (a, b) for whole in ("floor", "ceil"))
    if steps and _agreeing(pair, _whole_points(names), complex_allowed) is None:
        return False
    good = _agreeing(pair, _points(names, POINTS, 1), complex_allowed)
    if good is None or good < NEEDED:
        if good is None or complex_allowed:
            return False
        good = _agreeing(pair, _whole_points(names), False)
        return good is not None and good >= NEEDED
    return _agreeing(pair, _points(names, NEGATIVE_POINTS, -1), False) is not None


def _agreeing(pair: Any, points: Iterator[Mapping[str, Fraction]], complex_allowed: bool) -> int | None:
    """At how many points the two are equal, or None as soon as they are different at one where both are real."""
    good = 0
    for at in points:
        try:
            values = pair(0, at)
            same = _same(values, lambda at=at: pair(1, at))
        except Undefined:
            continue
        if same:
            good += 1
        elif complex_allowed or _real(*values):
            return None
    return good


def _real(*values: Value) -> bool:
    return all(isinstance(x, Fraction | int) or not hasattr(x, "_mpc_") for x in values)


def _same(rough: tuple[Value, Value], finely: Any) -> bool:
    a, b = rough
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    ctx = context(0)
    a, b = (_rounded(x, ctx) for x in rough)
    if ctx.isinf(a) or ctx.isinf(b):
        return bool(a == b)
    difference, size = abs(a - b), max(abs(a), abs(b))
    if difference > size * 1e-15 and difference > 1e-12:
        return False
    fine = context(1)
    a, b = (_rounded(x, fine) for x in finely())
    finer = abs(a - b)
    return bool(
        finer == 0
        or finer <= fine.mpf(difference) * fine.mpf(10) ** -60
        or (difference == 0 and finer <= max(abs(a), abs(b)) * fine.mpf(10) ** -200)
    )


def _rounded(x: Value, ctx: Any) -> Any:
    return ctx.mpf(x.numerator) / x.denominator if isinstance(x, Fraction) else x


def _points(names: frozenset[str], count: int, sign: int) -> Iterator[Mapping[str, Fraction]]:
    for turn in range(count):
        yield {name: sign * number for name, number in zip(sorted(names), _numbers(turn, len(names)), strict=True)}


@lru_cache(maxsize=64)
def _numbers(turn: int, count: int) -> tuple[Fraction, ...]:
    rng = random.Random(f"point {turn}")
    return tuple(Fraction(rng.randint(11, 640), rng.choice((89, 97, 100, 101))) for _ in range(count))


def _whole_points(names: frozenset[str]) -> Iterator[Mapping[str, Fraction]]:
    """Small natural numbers, for what is real at these alone: (-1)^n."""
    for turn in range(POINTS):
        rng = random.Random(f"whole {turn}")
        yield {name: Fraction(turn + 1 if len(names) == 1 else rng.randint(1, 9)) for name in sorted(names)}


def rounds_to(decimal: Tree, exact: Tree) -> bool:
    """Whether a decimal of six significant digits or more is an exact value that was rounded or cut off."""
    sign, numeral = _numeral(decimal)
    if numeral is None or symbols(exact):
        return False
    _, given, places = numeral
    if given.denominator == 1:
        return False  # 1.00000 for 1 - 2^-100
    digits = str(abs(given.numerator * 10 ** max(places, 0) // given.denominator)) if places < 400 else "0"
    if len(digits.lstrip("0")) < 6:
        return False
    ctx = context(0)
    try:
        x = number(exact)
    except Undefined:
        return False
    if hasattr(x, "_mpc_") or ctx.isinf(x):
        return False
    unit = ctx.mpf(10) ** -places
    given_value = _rounded(sign * given, ctx)
    cut = abs(x) - abs(given_value)
    return bool(abs(x - given_value) <= unit / 2 or (0 <= cut < unit and (x > 0) == (given_value > 0)))


def is_decimal(tree: Tree) -> bool:
    numeral = _numeral(tree)[1]
    return numeral is not None and numeral[2] > 0


def _numeral(tree: Tree) -> tuple[int, Any]:
    sign = 1
    while tree[0] == "neg":
        sign, tree = -sign, tree[1]
    return sign, tree if tree[0] == "num" and tree[2] != -1 else None
