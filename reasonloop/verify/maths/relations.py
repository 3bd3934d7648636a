"""Equations and inequalities: what they say of one name, and chains of equal values."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction

from reasonloop.verify.maths.agree import agree, near, straight
from reasonloop.verify.maths.expression import parsed
from reasonloop.verify.maths.forms import Form, Interval, Quantity, Relation, Union
from reasonloop.verify.maths.names import name_of
from reasonloop.verify.maths.tokens import Token, Unreadable, Unsupported
from reasonloop.verify.maths.tree import Tree, symbols
from reasonloop.verify.maths.units import measured

_INFINITE: Tree = ("const", "oo")
_LEAST: Tree = ("neg", _INFINITE)


def last_of(quantities: list[Quantity], marks: list[str], percent: bool) -> Quantity:
    """The value of a chain a = b = c, all of which must be equal; of a ~ b the exact one. `percent`: 75 % of 0.75 = 75 %."""
    last = quantities[-1]
    for before, mark in zip(quantities, marks, strict=False):
        if mark == "=" and not agree(_plain(before), _plain(last)):
            raise Unreadable("an equation that doesn't hold")
        if mark == "~" and not near(before.tree, last.tree):
            raise Unreadable("an estimate that is none")
    if set(marks) == {"~"}:
        return quantities[0]
    return next((q for q in quantities[::-1] if ("%" in q.units) == percent), last)


def _plain(quantity: Quantity) -> Tree:
    """0.56 = 56 %"""
    return ("/", quantity.tree, ("num", Fraction(100), -1)) if "%" in quantity.units else quantity.tree


def inequality(sides: list[list[Token]], marks: list[str]) -> Form:
    """An inequality: as the numbers for which it holds where one side is a name or it is linear, else as it stands."""
    names = tuple(name_of(side) for side in sides)
    trees = tuple(_side(side, name) for side, name in zip(sides, names, strict=True))
    at = [i for i, name in enumerate(names) if name and name not in ("e", "i")]
    if len(marks) == 1 and not at and (solved := _solved(trees, marks[0])) is not None:
        return solved
    if len(at) != 1 or len(sides) > 3 or (len(sides) == 3 and at != [1]):
        return Relation(trees, tuple(marks), names)
    whole = Interval(_LEAST, False, _INFINITE, False)
    for i, mark in enumerate(marks):
        above = at[0] <= i  # the bound stands behind the name
        bound = trees[i + 1] if above else trees[i]
        if mark == "!=":
            if len(marks) > 1:
                return Relation(trees, tuple(marks), names)
            return Union((replace(whole, high=bound), replace(whole, low=bound)))
        if mark not in ("<", "<=", ">", ">="):
            raise Unsupported("a chain of other relations")
        if (mark[0] == "<") == above:
            whole = replace(whole, high=bound, high_in=mark.endswith("="))
        else:
            whole = replace(whole, low=bound, low_in=mark.endswith("="))
    return _of_absolute(whole) if re.fullmatch(r"\|[a-z]\|", names[at[0]]) else Union((whole,))


def _of_absolute(found: Interval) -> Union:
    """1 < |z| < 2 as numbers z."""
    if found.low == _LEAST:
        return Union((replace(found, low=("neg", found.high), low_in=found.high_in),))
    return Union((found, Interval(("neg", found.high), found.high_in, ("neg", found.low), found.low_in)))


def _solved(trees: tuple[Tree, ...], mark: str) -> Form | None:
    """A linear inequality in one variable, for example -2x > 6, as the numbers for which it holds."""
    difference: Tree = ("+", trees[0], ("neg", trees[1]))
    names = symbols(difference)
    if len(names) != 1 or mark not in ("<", "<=", ">", ">="):
        return None
    line = straight(difference, next(iter(names)))
    if line is None or line[1] == 0:
        return None
    root: Tree = ("num", -line[0] / line[1], -1)
    if (mark[0] == "<") == (line[1] > 0):
        return Union((Interval(_LEAST, False, root, mark.endswith("=")),))
    return Union((Interval(root, mark.endswith("="), _INFINITE, False),))


def _side(tokens: list[Token], name: str) -> Tree:
    plain = all(token.kind in ("num", "name", "op") and token.text != "(" for token in tokens)
    return ("sym", name) if name and not plain else parsed(measured(tokens).tokens)
