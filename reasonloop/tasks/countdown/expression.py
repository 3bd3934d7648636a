"""Arithmetic expressions, read by Python's own parser behind a gate: nothing is executed, and every size is bounded."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from typing import Any

MAX_CHARS = 1000
MAX_TOKENS = 200
MAX_DEPTH = 40
MAX_DIGITS = 9

_LOOKALIKES = str.maketrans({"x": "*", "X": "*", "×": "*", "·": "*", "∙": "*", "⋅": "*", "÷": "/", "−": "-", "–": "-"})
_LATEX = (("\\times", "*"), ("\\cdot", "*"), ("\\div", "/"), ("\\left", ""), ("\\right", ""))
_TOKEN = re.compile(r"[0-9]+|[-+*/()]")
_FOREIGN = re.compile(r"[^\s0-9+*/()-].{0,19}", re.DOTALL)
_OPERATIONS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


class ExpressionError(ValueError):
    """The text is no complete expression; the message says why."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression."""

    numbers: tuple[int, ...]
    """The integers in it, in reading order"""
    tree: ast.expr
    """Binary operations and integers alone"""

    def value(self) -> Fraction:
        """The exact value; ZeroDivisionError where it has none."""
        return _value(self.tree)


def parse_expression(text: str) -> Expression:
    """Parses integers, + - * / and brackets (also x × · ÷ − and their LaTeX names); no signs, no implied products.

    Raises ExpressionError for anything else, and for more than MAX_CHARS characters, MAX_TOKENS tokens, MAX_DIGITS digits
    or MAX_DEPTH nested brackets: so small that the parser's time and stack don't matter.
    """
    if len(text) > MAX_CHARS:
        raise ExpressionError(f"longer than {MAX_CHARS} characters")
    for name, sign in _LATEX:
        text = text.replace(name, sign)
    text = text.translate(_LOOKALIKES).strip()
    if foreign := _FOREIGN.search(text):
        raise ExpressionError(f"'{foreign[0].strip()}' is no part of an expression")
    tokens = _TOKEN.findall(text)
    if len(tokens) > MAX_TOKENS:
        raise ExpressionError(f"more than {MAX_TOKENS} tokens")
    if any(len(token) > MAX_DIGITS for token in tokens):
        raise ExpressionError(f"a number of more than {MAX_DIGITS} digits")
    if max(accumulate((token == "(") - (token == ")") for token in tokens), default=0) > MAX_DEPTH:
        raise ExpressionError(f"deeper than {MAX_DEPTH} brackets")
    # spaces keep two signs from being one (**, //); Python refuses zeros in front of a number
    python = " ".join(token.lstrip("0") or "0" if token.isdigit() else token for token in tokens)
    try:
        tree = ast.parse(python, mode="eval").body
    except SyntaxError:
        tree = None
    if tree is None or not all(isinstance(part, _PARTS) for part in ast.walk(tree)):
        raise ExpressionError(f"'{python[:60]}' is no complete expression" if tokens else "empty")
    return Expression(tuple(int(token) for token in tokens if token.isdigit()), tree)


_PARTS = (ast.BinOp, ast.Constant, *_OPERATIONS)


def _value(tree: ast.expr) -> Fraction:
    if isinstance(tree, ast.BinOp):
        value: Fraction = _OPERATIONS[type(tree.op)](_value(tree.left), _value(tree.right))
        return value
    assert isinstance(tree, ast.Constant)
    assert isinstance(tree.value, int)
    return Fraction(tree.value)
