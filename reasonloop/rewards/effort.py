"""Effort: how much of a response is reasoning of its own. The exploration rewards pay for nothing else.

What doesn't count, each a way in which policies have learnt to be paid for length:

- tokens behind the first final answer (padding);
- tokens that only stand in n-grams which the response has had before (loops);
- tokens that only stand in n-grams of the prompt (copying).

What no count of n-grams can see: filler that is new at every n-th token.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from reasonloop.errors import InputError
from reasonloop.records import Problem
from reasonloop.verify.extract import STYLES

Decode = Callable[[np.ndarray], str]
"""int32 [T] -> text without special tokens (`Policy.decode`)"""
AnswerEnd = Callable[[Problem, str], int | None]
"""(problem, response text) -> offset of the character behind the first final answer, or None if there is none"""

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


@dataclass(frozen=True)
class Effort:
    """What counts of one response."""

    tokens: int
    """Response tokens that count as effort"""
    grams: frozenset[bytes]
    """The distinct n-grams that make them: the bytes of their int32 token ids"""
    text: str
    """The response up to the end of its first final answer"""


def effort_of(
    prompt: np.ndarray, response: np.ndarray, n: int, decode: Decode, end: Callable[[str], int | None]
) -> Effort:
    """The effort in a response: int32 [P], int32 [T] -> Effort. `end` finds the end of the first final answer in the text.

    O(T) n-grams, and O(log T) calls of `decode`.
    """
    text = decode(response)
    stop = end(text)
    if stop is not None:
        response = response[: tokens_before(response, stop, decode, text)]
        text = text[:stop]
    first = _first_places(prompt, response, n)
    return Effort(_covered(first.values(), min(n, len(response))), frozenset(first), text)


def effort_tokens(prompt: np.ndarray, response: np.ndarray, n: int = 4) -> int:
    """How many tokens of the response stand in the first occurrence of an n-gram that the prompt doesn't hold.

    int32 [P], int32 [T] -> 0..T. A response shorter than n is one n-gram of its own length. A loop of period p counts
    p + n - 1 tokens at most, however often it turns. The response is taken as it is: cut it first (`tokens_before`).
    """
    return _covered(_first_places(prompt, response, n).values(), min(n, len(response)))


def tokens_before(response: np.ndarray, offset: int, decode: Decode, text: str | None = None) -> int:
    """The least number of leading tokens whose text begins with the response's first `offset` characters.

    A token across the offset counts. `text`: decode(response), where the caller has it. By bisection over prefixes,
    since decoders join, strip and repair, so that no token has a text of its own. Where the bytes of the response are
    no valid UTF-8, it may land elsewhere within that run of bytes.
    """
    wanted = (decode(response) if text is None else text)[:offset]
    low, high = 0, len(response)
    while low < high:
        middle = (low + high) // 2
        if decode(response[:middle]).startswith(wanted):
            high = middle
        else:
            low = middle + 1
    return low


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


def answer_end_of(task: object) -> AnswerEnd:
    """The task's own `answer_end(problem, text)`, else the generic one."""
    own = getattr(task, "answer_end", None)
    return own if own is not None else lambda problem, text: default_answer_end(text)


def _first_places(prompt: np.ndarray, response: np.ndarray, n: int) -> dict[bytes, int]:
    """The response's n-grams that the prompt doesn't hold, each with its first position."""
    n = min(n, len(response))
    if n == 0:
        return {}
    copied = set(_grams(prompt, n))
    places: dict[bytes, int] = {}
    for place, gram in enumerate(_grams(response, n)):
        if gram not in copied:
            places.setdefault(gram, place)
    return places


def _grams(tokens: np.ndarray, n: int) -> list[bytes]:
    raw = np.asarray(tokens, dtype=np.int32).tobytes()
    return [raw[4 * i : 4 * (i + n)] for i in range(len(tokens) - n + 1)]


def _covered(places: Iterable[int], n: int) -> int:
    """How many positions the n-grams that start at `places` cover; `places` upwards."""
    total, reach = 0, 0
    for place in places:
        total += place + n - max(place, reach)
        reach = place + n
    return total


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
