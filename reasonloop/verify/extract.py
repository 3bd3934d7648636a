r"""Where the final answer stands in a response. Pure, and linear in the length of the text.

The styles:

- "boxed": what the last ``\boxed{...}`` holds, braces balanced (``\{`` and ``\}`` are letters, not groups). A last
  box that is never closed, as in a response that was cut off, gives None: nobody knows what it would have said.
- "hash": the first line after the last ``####`` (GSM8K).
- "last_number": the last numeral, its sign, ``$``, exponent, ``/denominator`` and ``%`` included.
- "final": the box if there is one (closed or not: the box decides), else hash, else what follows the last "answer is"
  or "answer:", else the last number.
- "bare": the box if there is one, else the whole text.
- "all": the whole text, stripped.
"""

from __future__ import annotations

import re
from typing import Literal, get_args

from reasonloop.errors import InputError

Style = Literal["boxed", "hash", "last_number", "final", "bare", "all"]
STYLES: tuple[str, ...] = get_args(Style)

_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_BOX_OPEN = re.compile(r"\\boxed\s*\{")

# Possessive quantifiers (`++`): a run of ten million digits is walked once, whatever follows it.
_NUMERAL = (
    r"(?:(?<![\w)\]}])[-+\u2212])?(?:\\?\$[-\u2212]?)?(?<![A-Za-z0-9_])"
    r"(?:[0-9]++(?:,[0-9]++)*+(?:\.[0-9]++)?+|(?<!\.)\.[0-9]++)"
    r"(?:[eE][-+]?[0-9]++(?![A-Za-z]))?+"
    r"(?:\s?/\s?[0-9]++(?![.,]?[0-9]))?+"
    r"(?:\s?\\?%|\s?percent\b)?+"
)
_NUMBER_IN_TEXT = re.compile(_NUMERAL)
_THOUSANDS = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])")
_ANSWER_PHRASE = re.compile(r"\banswer\s{0,20}(?:is\b|:|=)\s{0,20}:?\s{0,20}", re.IGNORECASE)
# "18 dollars", "5 m long": a numeral, then words. Not "3 x + 1" (one letter), nor "5 or 6" (a second answer).
_NUMERAL_WITH_UNIT = re.compile(rf"({_NUMERAL})(?=\s+(?!(?:or|and|to)\b)[A-Za-z]{{2,}})")
_SENTENCE = 1_000


def extract_answer(text: str, style: str) -> str | None:
    """The final answer in `text`, stripped, or None if the text has none where `style` looks for it.

    Time and memory are linear in len(text). Raises InputError for an unknown style.
    """
    if style == "boxed":
        return _boxed(text)
    if style == "hash":
        return _after_hash(text)
    if style == "last_number":
        return _last_number(text)
    if style == "final":
        if "\\boxed" in text:
            return _boxed(text)
        return _after_hash(text) or _after_phrase(text) or _last_number(text)
    if style == "bare" and "\\boxed" in text:
        return _boxed(text)
    if style in ("bare", "all"):
        return text.strip() or None
    raise InputError(f"answer extraction: got {style!r}, expected one of {', '.join(STYLES)}")


def gold_answer(text: str) -> str:
    r"""The gold answer in a worked solution: after ``####`` (GSM8K), else in ``\boxed{}`` (MATH), else the text itself.

    For tasks, when they load a file. Raises InputError if the mark is there and no answer with it.
    """
    for mark, style in (("####", "hash"), ("\\boxed", "boxed")):
        if mark in text:
            answer = extract_answer(text, style)
            if not answer:
                raise InputError(f"gold answer: got {text[-80:]!r}, expected an answer with its {mark}")
            return answer
    return text.strip()


def gold_response(answer: str, style: str) -> str:
    """A response whose answer `style` finds and reads as `answer`; to verify gold answers against themselves."""
    if style in ("boxed", "final"):
        return f"\\boxed{{{answer}}}"
    return f"#### {answer}" if style == "hash" else answer


def _boxed(text: str) -> str | None:
    opening = _BOX_OPEN.match(text, max(text.rfind("\\boxed"), 0))
    if opening is None:
        return None
    depth = 1
    for brace in _BRACE.finditer(text, opening.end()):
        if brace.group() == "{":
            depth += 1
        elif brace.group() == "}":
            depth -= 1
            if depth == 0:
                return text[opening.end() : brace.start()].strip() or None
    return None


def _after_hash(text: str) -> str | None:
    at = text.rfind("####")
    if at < 0:
        return None
    start = at + 4
    end = text.find("\n", start)
    return text[start : end if end >= 0 else len(text)].strip() or None


def _after_phrase(text: str) -> str | None:
    last = None
    for last in _ANSWER_PHRASE.finditer(text):  # noqa: B007  (the last match is the one that counts)
        pass
    if last is None:
        return None
    line = text[last.end() : last.end() + _SENTENCE].split("\n", 1)[0]
    sentence = re.split(r"\.\s", line, maxsplit=1)[0].strip().strip("*").rstrip(".").strip()
    with_unit = _NUMERAL_WITH_UNIT.match(sentence)
    return (with_unit.group(1) if with_unit else sentence) or None


def _last_number(text: str) -> str | None:
    last = None
    for last in _NUMBER_IN_TEXT.finditer(text):  # noqa: B007
        pass
    if last is None:
        return None
    numeral = last.group().strip()
    if "," in numeral and not _THOUSANDS.search(numeral):
        numeral = numeral.rsplit(",", 1)[1]  # "3,4" is a list: its last number is 4
    return numeral
