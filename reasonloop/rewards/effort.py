"""Effort: how much of a response is reasoning of its own. The exploration rewards pay for nothing else.

What doesn't count, each a way in which policies have learnt to be paid for length:

- tokens behind the first final answer (padding);
- tokens that only stand in n-grams which the response has had before (loops);
- tokens that only stand in n-grams of the prompt (copying).

What no count of n-grams can see: filler that is new at every n-th token.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from reasonloop.records import Problem, Rollout
from reasonloop.verify.answer_end import default_answer_end

NGRAM = 4
"""Tokens in the n-grams by which repetition, prompt copying and novelty are told"""
Decode = Callable[[np.ndarray], str]
"""int32 [T] -> text without special tokens (`Codec.decode`)"""
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


def effort_of(rollout: Rollout, n: int, decode: Decode, end: Callable[[str], int | None]) -> Effort:
    """The effort in a rollout's response: the tokens in first occurrences of n-grams that the prompt doesn't hold.

    `end` finds the end of the first final answer in the text. A response shorter than n is one n-gram of its own length. A
    loop of period p counts p + n - 1 tokens at most, however often it turns. Tokens that the policy didn't sample are no
    effort of its. O(T) n-grams, and O(log T) calls of `decode`.
    """
    response = rollout.response_tokens
    text = decode(response)
    stop = end(text)
    if stop is not None:
        text = text[:stop]
        response = response[: tokens_before(response, text, decode)]
    n = min(n, len(response))
    copied = set(_grams(rollout.prompt_tokens, n))
    counted = np.zeros(len(response), dtype=bool)
    grams: set[bytes] = set()
    for place, gram in enumerate(_grams(response, n)):
        sampled = rollout.sampled is None or rollout.sampled[place : place + n].all()
        if sampled and gram not in copied and gram not in grams:
            grams.add(gram)
            counted[place : place + n] = True
    return Effort(int(counted.sum()), frozenset(grams), text)


def tokens_before(response: np.ndarray, text: str, decode: Decode) -> int:
    """The least number of leading tokens whose own text begins with `text`, with which the response's begins.

    A token across the end of `text` counts. By bisection over prefixes, since decoders join, strip and repair, so that no
    token has a text of its own. Where the bytes of the response are no valid UTF-8, it may land elsewhere within that run of
    bytes.
    """
    return bisect_left(range(len(response)), True, key=lambda count: decode(response[:count]).startswith(text))


def answer_end_of(task: object) -> AnswerEnd:
    """The task's own `answer_end(problem, text)`, else the generic one."""
    return getattr(task, "answer_end", None) or (lambda problem, text: default_answer_end(text))


def _grams(tokens: np.ndarray, n: int) -> list[bytes]:
    raw = np.asarray(tokens, dtype=np.int32).tobytes()
    return [raw[4 * i : 4 * (i + n)] for i in range(len(tokens) - n + 1)]
