"""Where the first final answer of a response ends: what comes behind it is no reasoning."""

from __future__ import annotations

import re

from reasonloop.errors import InputError
from reasonloop.verify.extract import STYLES

# Possessive quantifiers: no character is walked twice, whatever follows.
_BOX_OR_BRACE = re.compile(
    r"\\boxed\s*+\{|\\(?!\\boxed).|[{}]", re.DOTALL
)  # a box behind a line break (\\) is one, too
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

    None if there is none of these. "The answer is not ..." and the like are no answers. Linear in len(text).
    """
    ends = (_box_end(text), _mark_end(_HASH_NUMBER, text), _mark_end(_PHRASE, text))
    return min((end for end in ends if end is not None), default=None)


def answer_end(text: str, style: str) -> int | None:
    """Offset behind the first final answer where `extract.extract_answer` with the same style looks for it, or None.

    "last_number" has no first answer: there it is the end of the last number, and "final" falls back on it as the
    extraction does. Linear in len(text). Raises InputError for an unknown style.
    """
    if style not in STYLES:
        raise InputError(f"answer extraction: got {style!r}, expected one of {', '.join(STYLES)}")
    if style in ("boxed", "bare"):
        return _box_end(text)
    if style == "hash":
        return _mark_end(_HASH, text)
    if style == "all":
        return None
    end = default_answer_end(text) if style == "final" else None
    return end if end is not None else max(text.rfind(digit) for digit in "0123456789") + 1 or None


def _box_end(text: str) -> int | None:
    """Behind the first box that is closed; braces are balanced as in `extract`."""
    if "\\boxed" not in text:
        return None
    boxes: list[bool] = []  # the open braces, and which of them open a box
    for mark in _BOX_OR_BRACE.finditer(text):
        found = mark.group()
        if found == "}":
            if boxes and boxes.pop():
                return mark.end()
        elif found.endswith("{") and found != "\\{":
            boxes.append(found != "{")
    return None


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
