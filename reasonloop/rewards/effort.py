"""Effort: how much of a response is reasoning of its own. The exploration rewards pay for nothing else.

What doesn't count, each a way in which policies have learnt to be paid for length:

- tokens behind the first final answer (padding);
- tokens that only stand in n-grams which the response has had before (loops);
- tokens that only stand in n-grams of the prompt (copying).

What no count of n-grams can see: filler that is new at every n-th token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from reasonloop.records import Problem
from reasonloop.verify.answer_end import default_answer_end

Decode = Callable[[np.ndarray], str]
"""int32 [T] -> text without special tokens (`Policy.decode`)"""
AnswerEnd = Callable[[Problem, str], int | None]
"""(problem, response text) -> offset of the character behind the first final answer, or None if there is none"""


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
