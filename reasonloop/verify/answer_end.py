"""Where the first final answer of a response ends: what comes behind it is no reasoning."""

from __future__ import annotations

import re

from reasonloop.errors import InputError
from reasonloop.verify.extract import ANSWER_TAG, STYLES, boxes_of, spoken_from

# Possessive quantifiers: no character is walked twice, whatever follows.
_HASH = re.compile(r"####[ \t]*+(?=[^\s#])")
_HASH_NUMBER = re.compile(r"####[ \t]*+(?=[-+$(.\\]{0,4}[0-9])")  # not a Markdown heading
_PHRASE = re.compile(
    r"\banswer\b(?:\s{0,20}(?:is\b|:|=)[\s:*]{0,20}+|\s{1,20}+(?=[(0-9]))(?=\S)"  # the second: Countdown's traces
    r"(?!(?:not|still|yet|un(?:known|clear|likely)|wrong|incorrect|in?valid|right|correct|to|what|probably|likely)\b)",
    re.IGNORECASE,
)
_VALUE = re.compile(r"[-+*/()=.,0-9 \t$%]*+")
_SENTENCE_END = re.compile(r"\n|\.(?=\s)")
_LONGEST_ANSWER = 200


def default_answer_end(text: str) -> int | None:
    r"""Offset behind the first final answer: ``\boxed{...}``, ``#### 5``, "answer is 5", "answer: 5", "answer ( 2 + 3 )".

    None if there is none of these. "The answer is not ..." and the like are no answers, nor is anything in the thinking.
    Linear in len(text).
    """
    start = spoken_from(text)
    return None if start is None else _shifted(_default_end(text[start:]), start)


def _default_end(text: str) -> int | None:
    ends = (tag_end(text), _box_end(text), _mark_end(_HASH_NUMBER, text), _mark_end(_PHRASE, text))
    return min((end for end in ends if end is not None), default=None)


def _shifted(end: int | None, start: int) -> int | None:
    return None if end is None else start + end


def answer_end(text: str, style: str) -> int | None:
    """Offset behind the first final answer where `extract.extract_answer` with the same style looks for it, or None.

    "last_number" has no first answer: there it is the end of the last number, and "final" falls back on it as the
    extraction does. Linear in len(text). Raises InputError for an unknown style.
    """
    if style not in STYLES:
        raise InputError(f"answer extraction: got {style!r}, expected one of {', '.join(STYLES)}")
    start = spoken_from(text)
    if style == "all" or start is None:
        return None
    text = text[start:]
    if style in ("boxed", "bare"):
        return _shifted(_box_end(text), start)
    if style == "hash":
        return _shifted(_mark_end(_HASH, text), start)
    end = _default_end(text) if style == "final" else None
    return _shifted(end or max(text.rfind(digit) for digit in "0123456789") + 1 or None, start)


def tag_end(text: str) -> int | None:
    """Behind the first <answer>...</answer>."""
    opened = False
    for tag in ANSWER_TAG.finditer(text):
        if opened and tag["closes"]:
            return tag.end()
        opened = opened or not tag["closes"]
    return None


def _box_end(text: str) -> int | None:
    """Behind the first box that is closed."""
    return min((box.end for box in boxes_of(text)[0]), default=None) if "box" in text else None


def _mark_end(mark: re.Pattern[str], text: str) -> int | None:
    """Behind the answer that follows the first such mark: a run of figures, else the rest of the sentence, bounded."""
    found = mark.search(text)
    if found is None:
        return None
    start, limit = found.end(), min(found.end() + _LONGEST_ANSWER, len(text))
    value = _VALUE.match(text, start, limit)
    if value is not None and any(character.isdigit() for character in value.group()):
        return start + len(value.group().rstrip())
    stop = _SENTENCE_END.search(text, start, limit)
    return stop.start() if stop else limit
