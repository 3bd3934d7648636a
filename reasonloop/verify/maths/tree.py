r"""Expressions as trees: tuples whose first element says what they are.

    ("num", value, decimals)   ("sym", name)    ("const", "pi" | "e" | "i" | "oo")
    ("+", a, b)  ("neg", a)  ("*", a, b)  ("/", a, b)  ("^", a, b)  ("!", a)
    ("fn", name, a)  ("log", base, a)  ("root", n, a)  ("binom", n, k)
    ("pm", sign, a)   the sign of \pm and \mp in front of a

`decimals` of a number: the digits behind its point, -1 where it has none (or is no decimal).
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

Tree = tuple[Any, ...]


def integer(value: int) -> Tree:
    return ("num", Fraction(value), -1)


def variable(name: str) -> Tree:
    return ("const", name) if name in ("e", "i") else ("sym", name)


def symbols(tree: Tree) -> frozenset[str]:
    """The variables of a tree."""
    found, todo = set(), [tree]
    while todo:
        node = todo.pop()
        if node[0] == "sym":
            found.add(node[1])
        todo += [part for part in node[1:] if isinstance(part, tuple)]
    return frozenset(found)


def has(tree: Tree, kind: str, name: str | None = None) -> bool:
    """Whether a node of that kind (and that name) stands in the tree."""
    todo = [tree]
    while todo:
        node = todo.pop()
        if node[0] == kind and (name is None or node[1] == name):
            return True
        todo += [part for part in node[1:] if isinstance(part, tuple)]
    return False


def is_written_number(tree: Tree) -> bool:
    """Whether it is one number as people write it: -2.5, 3/4, 2\\frac12, 1.5 x 10^3; no sum or other calculation."""
    if tree[0] == "neg":
        tree = tree[1]
    if tree[0] == "^" and tree[1] == integer(10):
        return is_numeral(tree[2])
    if tree[0] == "*":
        power = tree[2]
        if power[:2] != ("^", integer(10)) or not is_written_number(power[2]):
            return False
        tree = tree[1]
    if tree[0] == "/":
        return is_numeral(tree[1]) and is_numeral(tree[2])
    return tree[0] == "num"


def is_numeral(tree: Tree) -> bool:
    """Whether it is a numeral with no more than signs in front."""
    while tree[0] == "neg":
        tree = tree[1]
    return bool(tree[0] == "num")


def renamed(tree: Tree, old: str, new: str) -> Tree:
    """The tree with another name for one of its variables."""
    if tree == ("sym", old):
        return ("sym", new)
    return (tree[0], *(renamed(part, old, new) if isinstance(part, tuple) else part for part in tree[1:]))
