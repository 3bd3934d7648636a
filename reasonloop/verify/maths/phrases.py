"""Answers in words: what two ways of saying them have in common, and what an answer is said with."""

from __future__ import annotations

import re

from reasonloop.verify.maths.tokens import Token
from reasonloop.verify.maths.words import EXPLAINS, FILLER, LEADING, MEANINGS, NUMBERS

_ORDINAL = re.compile(r"(?:st|nd|rd|th)")


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
        if words and words[-1].isdigit() and _ORDINAL.fullmatch(word):
            continue
        words.append(str(NUMBERS[word]) if word in NUMBERS else word)
    if words[:1] in (["yes"], ["no"]) and len(words) > 1 and tokens[1].kind == "sep":
        return words[0]
    kept = [word for word in words if word not in FILLER]
    text = " ".join(kept if kept else words)
    return MEANINGS.get(text, text)


def _is_condition(tokens: list[Token], place: int) -> bool:
    """Whether "for all real numbers t", "where n is any integer" begins here."""
    word = tokens[place].text.casefold()
    if word == "for":
        return place + 1 < len(tokens) and tokens[place + 1].text.casefold() in ("all", "any", "every", "each", "some")
    if word != "where" or any(token.kind in ("num", "rel") for token in tokens[place:]):
        return False
    return any(token.text.casefold() in _KINDS for token in tokens[place:])


def trimmed(tokens: list[Token]) -> list[Token]:
    """Without what an answer is said with: "the answer is" in front, a full stop, a reason and a modulus behind."""
    for place, token in enumerate(tokens):
        if place and token.kind == "word" and token.text.casefold() in EXPLAINS:
            tokens = tokens[: place - 1] if tokens[place - 1].text in "(," else tokens[:place]
            break
        if place and token.kind in ("word", "letters") and _is_condition(tokens, place):
            tokens = tokens[:place]
            break
        if place and (token.text == "mod" and token.kind in ("command", "word", "letters")):
            tokens = tokens[: place - 1] if tokens[place - 1].text == "(" else tokens[:place]
            break
    while tokens and (tokens[-1].kind == "sep" or (tokens[-1].kind == "op" and tokens[-1].text in (".", ":"))):
        tokens = tokens[:-1]
    while tokens and (tokens[0].kind == "sep" or (tokens[0].kind == "op" and tokens[0].text in (":", "*", "'"))):
        tokens = tokens[1:]
    while tokens and tokens[-1].kind == "op" and tokens[-1].text == "*" and len(tokens) > 1:
        tokens = tokens[:-1]
    if len(tokens) == 2 and tokens[0].kind == "num" and tokens[1].text == "'":
        tokens = tokens[:1]
    first = 0
    while (
        first < len(tokens) and tokens[first].kind in ("word", "letters") and tokens[first].text.casefold() in LEADING
    ):
        first += 1
    said = any(token.text.casefold() in ("answer", "answers") for token in tokens[:first])
    if first and first < len(tokens) and (said or any(token.kind in ("num", "command") for token in tokens[first:])):
        tokens = tokens[first:]
    return tokens
