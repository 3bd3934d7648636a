"""Answers in words: what two ways of saying them have in common, and what an answer is said with."""

from __future__ import annotations

import re

from reasonloop.verify.maths.tokens import Token
from reasonloop.verify.maths.words import EXPLAINS, FILLER, LEADING, MEANINGS, MONTHS, NUMBERS

_REALS = re.compile(r"(?:set )?(?:all|any|every) reals?(?: numbers?)?(?: [a-z])?")
_SAYS = frozenset(("answer", "answers", "option", "choice"))
_KINDS = frozenset(("any", "arbitrary", "constant", "integer", "integers", "real"))


def phrase(tokens: list[Token]) -> str:
    """The words of some tokens in one form: without case, articles and what else says nothing; numbers in figures."""
    words: list[str] = []
    for place, token in enumerate(tokens):
        if token.text == "A" and not (
            place + 1 < len(tokens) and len(tokens[place + 1].text) > 1 and token.kind != "num"
        ):
            words.append("A")  # a letter, and no article
            continue
        if token.kind == "op" and token.text in ".,()'?!{}":
            continue
        if token.kind == "sep" and token.text in ",;&":
            continue
        word = token.text.casefold()
        words.append(str(NUMBERS[word]) if word in NUMBERS else word)
    if any(word in MONTHS for word in words):  # 4 July
        words = sorted(word[:3] if word in MONTHS else word for word in words)
    kept = [word for word in words if word not in FILLER]
    text = " ".join(kept if kept else words)
    if "no solution" in text or "no real solution" in text:
        return "none"
    if _REALS.fullmatch(text):
        return "reals"
    return MEANINGS.get(text, text)


def without_condition(tokens: list[Token]) -> list[Token]:
    r"""Without what says where it holds: a modulus, "for all real t", "where n is an integer", (k \in \mathbb{Z})."""
    for place, token in enumerate(tokens):
        if place and token.kind in ("word", "letters") and _is_condition(tokens, place):
            return tokens[:place]
        if place and token.text == "mod" and token.kind in ("command", "word", "letters"):
            return tokens[: place - 1] if tokens[place - 1].text == "(" else tokens[:place]
    opening = max((i for i, token in enumerate(tokens) if token.text == "("), default=0)
    if opening and tokens[-1].text == ")" and is_domain(tokens[opening + 1 : -1]):
        return tokens[:opening]
    return tokens


def is_domain(tokens: list[Token]) -> bool:
    r"""k \in \mathbb{Z}, n \in N^*"""
    at = next((i for i, token in enumerate(tokens) if token.kind == "rel" and token.text == "in"), 0)
    if not at or any(token.kind not in ("name", "sep") for token in tokens[:at]) or at + 1 >= len(tokens):
        return False
    kind = tokens[at + 1]
    return kind.text == "mathbb" or (kind.kind == "name" and kind.text in "ZNRQ")


def _is_condition(tokens: list[Token], place: int) -> bool:
    """Whether "for all real numbers t", "where n is any integer" begins here."""
    word = tokens[place].text.casefold()
    if word not in ("for", "where") or any(token.kind in ("num", "rel") for token in tokens[place:]):
        return False
    if word == "for":
        return place + 1 < len(tokens) and tokens[place + 1].text.casefold() in ("all", "any", "every", "each", "some")
    return any(token.text.casefold() in _KINDS for token in tokens[place:])


def leads(tokens: list[Token], place: int) -> bool:
    """Whether a word stands there that says nothing of what follows; "by" in by + 1 is none."""
    token = tokens[place]
    if token.kind not in ("word", "letters") or token.text.casefold() not in LEADING:
        return False
    follower = tokens[place + 1] if place + 1 < len(tokens) else None
    return token.kind == "word" or (follower is not None and follower.spaced and follower.kind not in ("op", "rel"))


def trimmed(tokens: list[Token]) -> list[Token]:
    """Without what an answer is said with: "the answer is" in front, a full stop and a reason behind."""
    for place, token in enumerate(tokens):
        if place and token.kind == "word" and token.text.casefold() in EXPLAINS:
            tokens = tokens[: place - 1] if tokens[place - 1].text in "(," else tokens[:place]
            break
    while tokens and (tokens[-1].kind == "sep" or (tokens[-1].kind == "op" and tokens[-1].text in ".:")):
        tokens = tokens[:-1]
    if len(tokens) == 3 and tokens[0].text == tokens[2].text == "'":
        tokens = tokens[1:2]
    while tokens and (tokens[0].kind == "sep" or (tokens[0].kind == "op" and tokens[0].text in ":*")):
        tokens = tokens[1:]
    while len(tokens) > 1 and tokens[-1].kind == "op" and tokens[-1].text == "*":
        tokens = tokens[:-1]
    first = 0
    while first < len(tokens) and leads(tokens, first):
        first += 1
    said = any(token.text.casefold() in _SAYS for token in tokens[:first])
    value = any(token.kind in ("num", "command") or token.text in "([" for token in tokens[first:])
    return tokens[first:] if first < len(tokens) and (said or value) else tokens
