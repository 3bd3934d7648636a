r"""What stands around a value and isn't part of it: units, currencies, nouns, and words in front.

A unit is words (12 \text{ cm}^2, 5 km/h, 12 apples), a sign (°, %, \$), or a fraction of words. Bare letters may be
variables: they are units only where the reader is told so (12 m, 5 m/s).
"""

from __future__ import annotations

from dataclasses import dataclass

from reasonloop.verify.maths.phrases import leads
from reasonloop.verify.maths.tokens import Token, Unreadable
from reasonloop.verify.maths.words import CURRENCY, JUDGING, LETTER_UNITS, MULTIPLES, NUMBERS, SHAPES, UNIT_OF

_OPERATORS = frozenset("+-*/^_=<>")
_ANGLE_FUNCTIONS = frozenset("sin cos tan cot csc arcsin arccos arctan".split())
_BARE_COMMANDS = {"mu": "micro", "Omega": "ohm"}


@dataclass(frozen=True)
class Measured:
    """A value's tokens, and the unit that they stood with."""

    tokens: list[Token]
    units: frozenset[str] = frozenset()
    """Signs of the units that are known: {"km", "h"}; "%" and "deg" among them"""


def measured(tokens: list[Token], bare: bool = False) -> Measured:
    """The tokens of the value alone, with its units. Words alone are left as they are.

    `bare`: letters behind a number are units if they can be. Raises Unreadable where a word changes the value (5 squared).
    """
    tokens, front = _without_front(tokens)
    angle = any(token.kind == "command" and token.text in _ANGLE_FUNCTIONS for token in tokens)
    start = len(tokens) if angle else _unit_start(tokens, bare)
    core, unit = tokens[:start], tokens[start:]
    while unit and core and core[-1].kind == "op" and core[-1].text in "*.":
        core = core[:-1]
    if not core:
        return Measured(tokens)
    words = [token.text.casefold() for token in unit if token.kind in ("word", "letters")]
    if words and words[0] in MULTIPLES:
        core = _multiplied(core, MULTIPLES[words.pop(0)])
    if any(word in NUMBERS or word in MULTIPLES or word in JUDGING for word in words) or words in (
        ["squared"],
        ["cubed"],
    ):
        raise Unreadable("words behind a number that change it")
    return Measured(core, frozenset(front | _units(unit)))


def _units(tokens: list[Token]) -> set[str]:
    """Signs of the units, with their powers: cm2 of cm^2, of square cm and of cm squared; degC of °C."""
    found: list[str] = []
    power = 1
    for place, token in enumerate(tokens):
        if token.text in SHAPES:
            if token.text.endswith("ed") and found:
                found[-1] += str(SHAPES[token.text])
            else:
                power = SHAPES[token.text]
        elif token.text in ("C", "F") and any(before.text == "circ" for before in tokens[max(0, place - 3) : place]):
            found.append(f"deg{token.text}")
        elif token.kind == "num" and found and place and tokens[place - 1].text in "^{":
            found[-1] += token.text
        else:
            signs = _signs(token)
            found += [sign + (str(power) if power > 1 else "") for sign in signs]
            power = 1 if signs else power
    return set(found)


def _multiplied(core: list[Token], factor: int) -> list[Token]:
    last = core[-1]
    if last.kind != "num" or last.value is None:
        raise Unreadable("a number in words behind a formula")
    return [*core[:-1], last._replace(value=last.value * factor, decimals=-1)]


def with_nouns(tokens: list[Token]) -> list[Token]:
    """Letters that stand beside a word as a word (12 years old), and those behind a number that are one (5 cups)."""
    found: list[Token] = []
    subscript = 0
    """Braces open in a subscript, where words are names"""
    for place, token in enumerate(tokens):
        before = found[-1] if found else None
        if subscript or (before is not None and before.text == "_"):
            subscript += {"{": 1, "}": -1}.get(token.text, 0)
            found.append(token._replace(kind="name") if token.kind == "word" else token)
            continue
        follower = tokens[place + 1] if place + 1 < len(tokens) else None
        if token.kind == "word" and len(token.text) == 1 and follower is not None and follower.text == "_":
            token = token._replace(kind="name")
        if token.kind == "letters" and before is not None and token.spaced and token.text.isascii():
            value = before.kind == "num" or before.text in ("}", ")", "pi", "circ")
            if before.kind == "word" or (value and (_is_noun(token.text) or token.text in SHAPES)):
                token = token._replace(kind="word")
        found.append(token)
    return found


def _is_noun(letters: str) -> bool:
    return len(letters) >= 3 and (letters.endswith("s") or bool(set("aeiou") & set(letters[1:])))


def _signs(token: Token) -> list[str]:
    if token.kind == "unit":
        return [token.text]
    if token.kind == "command":
        sign = {"circ": "deg", "sec": "s", "min": "min"}.get(token.text)
        return [sign] if sign else []
    if token.text.casefold() in ("am", "pm"):
        return [token.text.casefold()]
    if token.text in SHAPES or token.kind not in ("word", "letters", "name"):
        return []
    return (UNIT_OF.get(token.text) or UNIT_OF.get(token.text.casefold()) or "").split()


def _without_front(tokens: list[Token]) -> tuple[list[Token], set[str]]:
    """Without words and a currency in front of a value."""
    front: set[str] = set()
    place = 0
    while place < len(tokens):
        token = tokens[place]
        money = [sign for sign in _signs(token) if sign in CURRENCY] if token.kind != "name" else []
        dollars = place + 1 < len(tokens) and tokens[place + 1].text == "$" and token.text.isupper()  # US\$
        if money:
            front.update(money)
        elif not (dollars or leads(tokens, place) or (place and token.kind == "op" and token.text in ":.")):
            break
        place += 1
    if place == 0 and len(tokens) > 2 and tokens[0].text in "+-" and set(_signs(tokens[1])) & CURRENCY:  # -\$5
        return tokens[:1] + tokens[2:], set(_signs(tokens[1]))
    return (tokens[place:], front) if place < len(tokens) else (tokens, set())


def _unit_start(tokens: list[Token], bare: bool) -> int:
    """Where the unit at the end begins; len(tokens) if there is none."""
    start = len(tokens)
    for place in range(len(tokens) - 1, 0, -1):
        if not _belongs(tokens, place, bare):
            break
        if _begins(tokens, place, bare):
            start = place
    return start


def _begins(tokens: list[Token], place: int, bare: bool) -> bool:
    token, before = tokens[place], tokens[place - 1]
    if before.kind == "op" and (before.text in "{(" or (before.text in _OPERATORS and before.text != "*")):
        return False
    if token.kind == "op" and token.text in "{(" and place + 1 < len(tokens):
        return tokens[place + 1].kind == "word"
    if token.kind in ("word", "unit") or _is_half(token) or (bare and _is_bare(token)):
        return True
    if token.kind == "command" and token.text in ("sec", "min"):
        return place == len(tokens) - 1
    if token.kind == "command" and token.text == "frac":
        return any(t.kind == "word" or (bare and _is_bare(t)) for t in tokens[place:])
    if token.kind == "command" and token.text == "circ":
        return True
    return token.text == "^" and any(t.text == "circ" for t in tokens[place + 1 : place + 3])


def _is_half(token: Token) -> bool:
    return token.kind == "letters" and token.text.casefold() in ("am", "pm") and token.spaced


def _is_bare(token: Token) -> bool:
    if token.kind == "command":
        return token.text in _BARE_COMMANDS
    return (token.kind == "name" and token.text in LETTER_UNITS) or (token.kind == "letters" and bool(_signs(token)))


def _belongs(tokens: list[Token], place: int, bare: bool) -> bool:
    """Whether a token can be part of a unit."""
    token, before = tokens[place], tokens[place - 1]
    if token.kind in ("word", "unit") or _is_half(token) or (bare and _is_bare(token)):
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
