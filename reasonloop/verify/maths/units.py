r"""What stands around a value and isn't part of it: units, currencies, nouns, and words in front.

A unit is words (12 \text{ cm}^2, 5 km/h, 12 apples), a sign (°, %, \$), or a fraction of words. Bare letters are never
taken for one here: `m` may be a variable (see `equal`).
"""

from __future__ import annotations

from dataclasses import dataclass

from reasonloop.verify.maths.tokens import Token
from reasonloop.verify.maths.words import CURRENCY, LEADING, UNIT_OF

_OPERATORS = frozenset("+-*/^_=<>")


@dataclass(frozen=True)
class Measured:
    """A value's tokens, and the unit that they stood with."""

    tokens: list[Token]
    units: frozenset[str] = frozenset()
    """Signs of the units that are known: {"km", "h"}; "%" and "deg" among them"""


def measured(tokens: list[Token]) -> Measured:
    """The tokens of the value alone, with its units. Words alone are left as they are."""
    tokens, front = _without_front(tokens)
    start = len(tokens) if any(_is_angle_function(token) for token in tokens) else _unit_start(tokens)
    core, unit = tokens[:start], tokens[start:]
    while unit and core and core[-1].kind == "op" and core[-1].text in "*.":
        core = core[:-1]
    units = front | {known for token in unit for known in [_unit_of(token)] if known}
    return Measured(core, frozenset(units)) if core else Measured(tokens)


def with_nouns(tokens: list[Token]) -> list[Token]:
    """Letters that stand beside a word as a word (12 years old), and those behind a number that are one (5 cups)."""
    found: list[Token] = []
    subscript = 0
    """Braces open in a subscript, where words are names"""
    for token in tokens:
        before = found[-1] if found else None
        below = before is not None and before.text == "_"
        if subscript or below:
            subscript += {"{": 1, "}": -1}.get(token.text, 0)
            found.append(token._replace(kind="name") if token.kind == "word" else token)
            continue
        noun = token.kind == "letters" and before is not None and token.spaced and token.text.isascii()
        if noun and before is not None and (before.kind == "word" or (before.kind == "num" and _is_noun(token.text))):
            token = token._replace(kind="word")
        found.append(token)
    return found


def _is_noun(letters: str) -> bool:
    return len(letters) >= 3 and (letters.endswith("s") or bool(set("aeiou") & set(letters[1:])))


def _is_angle_function(token: Token) -> bool:
    return token.kind == "command" and token.text in ("sin", "cos", "tan", "cot", "csc", "arcsin", "arccos", "arctan")


def _unit_of(token: Token) -> str | None:
    if token.kind == "unit":
        return token.text
    if token.kind == "command":
        return {"circ": "deg", "sec": "s", "min": "min"}.get(token.text)
    if token.kind == "name":
        return None
    return UNIT_OF.get(token.text) or UNIT_OF.get(token.text.casefold())


def _without_front(tokens: list[Token]) -> tuple[list[Token], set[str]]:
    """Without words and a currency in front of a value."""
    front: set[str] = set()
    place = 0
    while place < len(tokens):
        token = tokens[place]
        word = token.text.casefold()
        known = _unit_of(token)
        if known in CURRENCY:
            front.add(known)
        elif token.kind in ("word", "letters", "name") and word in LEADING and (len(word) > 1 or token.kind == "word"):
            pass
        elif not (token.kind == "op" and token.text in ":." and place):
            break
        place += 1
    signed = tokens[:1] if place == 0 and len(tokens) > 2 and tokens[0].text in "+-" else []
    if signed and _unit_of(tokens[1]) in CURRENCY:  # -\$5
        return signed + tokens[2:], {_unit_of(tokens[1]) or ""}
    return (tokens[place:], front) if place < len(tokens) else (tokens, set())


def _unit_start(tokens: list[Token]) -> int:
    """Where the unit at the end begins; len(tokens) if there is none."""
    start = len(tokens)
    for place in range(len(tokens) - 1, 0, -1):
        if not _belongs(tokens, place):
            break
        if _begins(tokens, place):
            start = place
    return start


def _begins(tokens: list[Token], place: int) -> bool:
    token, before = tokens[place], tokens[place - 1]
    if before.kind == "op" and before.text in _OPERATORS and before.text != "*":
        return False
    if before.text == "{" and before.kind == "op":
        return False
    if token.kind in ("word", "unit"):
        return True
    if token.kind == "command" and token.text in ("sec", "min"):
        return place == len(tokens) - 1
    if token.kind == "command" and token.text == "frac":
        return any(t.kind == "word" for t in tokens[place:])
    return token.kind == "op" and token.text == "^" and _is_degree(tokens, place)


def _is_degree(tokens: list[Token], place: int) -> bool:
    return any(t.text == "circ" for t in tokens[place + 1 : place + 3])


def _belongs(tokens: list[Token], place: int) -> bool:
    """Whether a token can be part of a unit."""
    token, before = tokens[place], tokens[place - 1]
    if token.kind in ("word", "unit"):
        return True
    if token.kind == "command":
        return token.text in ("circ", "frac") or (token.text in ("sec", "min") and place == len(tokens) - 1)
    if token.kind == "op":
        return token.text in "^/*{}-.()"
    two = tokens[max(place - 2, 0)]
    if token.kind == "num":  # a power
        return before.text == "^" or (before.text in "{-" and two.text in "^{")
    if token.kind == "name":  # °C, km/h
        return before.text in ("circ", "/", "}") and (before.text != "}" or two.text == "circ")
    return False
