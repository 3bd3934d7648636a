r"""Names of values: what may stand in front of an equals sign and says nothing of the value.

x, x_1, f(x), AB, \angle ABC, |AB|, V_1 : V_2, \frac{NO}{BO}, (x, y), words.
"""

from __future__ import annotations

from reasonloop.verify.maths.tokens import Token

_SIGNS = {"|", "(", ")", "{", "}", ":", "'", ",", "[", "]"}
_GREEK = frozenset("alpha beta gamma delta theta lambda mu phi omega rho sigma tau epsilon".split())
_COMMANDS = {"angle", "triangle", "overline", "frac", "max", "min", "ldots", "circ"}


def name_of(tokens: list[Token]) -> str:
    """The name that the tokens are, or "" if they are none."""
    return _name(tokens, frozenset())


def sum_name_of(tokens: list[Token]) -> str:
    """As `name_of`; sums and products of variables (m + n) are names, too."""
    return _name(tokens, frozenset("+-*"))


def _name(tokens: list[Token], operators: frozenset[str]) -> str:
    if not tokens or not any(token.kind in ("name", "letters", "word") or _is_greek(token) for token in tokens):
        return ""
    text, depth, subscript = "", 0, 0
    for place, token in enumerate(tokens):
        before = tokens[place - 1] if place else None
        if token.kind == "op" and token.text == "_" and place:
            subscript = 1
            text += "_"
            continue
        depth += {"(": 1, ")": -1}.get(token.text, 0) if token.kind == "op" else 0
        if token.kind == "op" and token.text in "{}" and subscript:
            subscript += 1 if token.text == "{" else -1
            subscript = 0 if subscript <= 1 and token.text == "}" else subscript
            continue
        called = depth > 0 and place > 1
        if not (subscript or called or _fits(token, operators)):
            return ""
        if called and not subscript and token.kind == "op" and token.text not in _SIGNS | {"+", "-"}:
            return ""
        if before is not None and before.text == "^":
            return ""
        text += token.text
        subscript = 0 if subscript == 1 else subscript
    return text


def _fits(token: Token, operators: frozenset[str]) -> bool:
    if token.kind in ("name", "letters", "word"):
        return True
    if token.kind == "sep":
        return token.text == ","
    if token.kind == "command":
        return token.text in _COMMANDS or _is_greek(token)
    return token.kind == "op" and (token.text in _SIGNS or token.text in operators)


def _is_greek(token: Token) -> bool:
    return token.kind == "command" and token.text in _GREEK
