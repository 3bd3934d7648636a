"""Arithmetic expressions, parsed without `eval` and with every size bounded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_CHARS = 1000
MAX_TOKENS = 200
MAX_DEPTH = 40
MAX_DIGITS = 9

_LOOKALIKES = str.maketrans({"x": "*", "X": "*", "×": "*", "·": "*", "∙": "*", "⋅": "*", "÷": "/", "−": "-", "–": "-"})
_LATEX = (("\\times", "*"), ("\\cdot", "*"), ("\\div", "/"), ("\\left", ""), ("\\right", ""))
_TOKEN = re.compile(r"\s*([0-9]+|[-+*/()])")
_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}


class ExpressionError(ValueError):
    """The text is no complete expression; the message says where it stopped being one."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression."""

    numbers: tuple[int, ...]
    """The integers in it, in reading order"""
    postfix: tuple[int | str, ...]
    """Integers and operators, operands before their operator"""

    def value(self) -> Fraction:
        """The exact value; ZeroDivisionError where it has none."""
        stack: list[Fraction] = []
        for item in self.postfix:
            if isinstance(item, int):
                stack.append(Fraction(item))
                continue
            right, left = stack.pop(), stack.pop()
            if item == "+":
                stack.append(left + right)
            elif item == "-":
                stack.append(left - right)
            elif item == "*":
                stack.append(left * right)
            else:
                stack.append(left / right)
        return stack[0]


def parse_expression(text: str) -> Expression:
    """Parses integers, + - * / and brackets (also x × · ÷ − and their LaTeX names); no signs, no implied products.

    Operator-precedence parsing with explicit stacks: linear time, no recursion. Raises ExpressionError for
    anything else, and for more than MAX_CHARS characters, MAX_TOKENS tokens or MAX_DEPTH nested brackets.
    """
    if len(text) > MAX_CHARS:
        raise ExpressionError(f"longer than {MAX_CHARS} characters")
    for name, sign in _LATEX:
        text = text.replace(name, sign)
    text = text.translate(_LOOKALIKES).strip()
    output: list[int | str] = []
    operators: list[str] = []
    depth = 0
    operand_next = True
    for token in _tokens(text):
        if token.isdigit():
            if not operand_next:
                raise ExpressionError(f"'{token}' without an operator in front of it")
            output.append(int(token))
            operand_next = False
        elif token == "(":
            depth += 1
            if not operand_next or depth > MAX_DEPTH:
                raise ExpressionError("'(' out of place" if not operand_next else f"deeper than {MAX_DEPTH} brackets")
            operators.append(token)
        elif operand_next:
            raise ExpressionError(f"'{token}' where a number was expected")
        elif token == ")":
            depth -= 1
            if depth < 0:
                raise ExpressionError("')' without '('")
            while operators[-1] != "(":
                output.append(operators.pop())
            operators.pop()
        else:
            while operators and _PRECEDENCE.get(operators[-1], 0) >= _PRECEDENCE[token]:
                output.append(operators.pop())
            operators.append(token)
            operand_next = True
    if operand_next:
        raise ExpressionError("ends where a number was expected" if output or operators else "empty")
    if depth:
        raise ExpressionError("'(' without ')'")
    output.extend(reversed(operators))
    return Expression(tuple(item for item in output if isinstance(item, int)), tuple(output))


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ExpressionError(f"'{text[position : position + 20].strip()}' is no part of an expression")
        if len(match[1]) > MAX_DIGITS:
            raise ExpressionError(f"a number of more than {MAX_DIGITS} digits")
        tokens.append(match[1])
        position = match.end()
        if len(tokens) > MAX_TOKENS:
            raise ExpressionError(f"more than {MAX_TOKENS} tokens")
    return tokens
