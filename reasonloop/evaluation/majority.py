"""Self-consistency (Wang et al., arXiv 2203.11171): majority vote over several samples, at an equal token budget."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from typing import TypeVar

import numpy as np

from reasonloop.records import Problem
from reasonloop.verify.answers import MAX_SYMBOLIC, fold, parse_number, same_value

AnswerT = TypeVar("AnswerT", bound=Hashable)
Answers = Callable[[Problem, str], str | None]
"""What a response answers: the answer's text, None where it has none"""
COMPARED = 8
"""Different answers that a new one is compared with by value; numbers and equal texts find their own at once"""


def answers_of(task: object) -> Answers | None:
    """The task's own `answer(problem, response)`, or None: then its answers can't be compared, and nothing votes.

    A response whose answer can't be told, since the function raises, has no vote.
    """
    own = getattr(task, "answer", None)
    if not callable(own):
        return None

    def answer(problem: Problem, response: str) -> str | None:
        with suppress(Exception):  # whatever a class of the user's own raises
            found = own(problem, response)
            return found if isinstance(found, str) else None
        return None

    return answer


def classes(answers: Sequence[str | None]) -> list[int | None]:
    """For each answer the number of the first one with its value: equal texts, equal numbers, and what `same_value` finds
    equal to one of the first few."""
    known: dict[Hashable, int] = {}
    texts: dict[int, str] = {}
    found: list[int | None] = []
    for i, answer in enumerate(answers):
        if answer is None:
            found.append(None)
            continue
        number = parse_number(answer)
        key: Hashable = fold(answer) if number is None else (number.value, number.percent)
        if key not in known:
            near = list(texts.items())[:COMPARED] if number is None and len(answer) <= MAX_SYMBOLIC else []
            known[key] = next((first for first, text in near if same_value(answer, text)), i)
            texts.setdefault(known[key], answer)
        found.append(known[key])
    return found


def samples_in_budget(tokens: Sequence[int], budget: float) -> int:
    """How many of the samples, in order, fit: their tokens sum to at most `budget`, but one is always taken."""
    return max(1, int(np.searchsorted(np.cumsum(tokens), budget, side="right")))


def vote(answers: Sequence[AnswerT | None]) -> AnswerT | None:
    """The most frequent answer; of equally frequent ones that which came first. None (no answer) has no vote."""
    counts: dict[AnswerT, int] = {}
    for answer in answers:
        if answer is not None:
            counts[answer] = counts.get(answer, 0) + 1
    return max(counts, key=counts.__getitem__) if counts else None


def self_consistency(
    answers: Sequence[Sequence[Hashable | None]],
    right: Sequence[Sequence[bool]],
    tokens: Sequence[Sequence[int]],
    budget: float,
    draws: int = 200,
    seed: int = 0,
) -> np.ndarray:
    """Accuracy of the vote for each problem, float64 [problems], over `draws` random orders of its samples.

    answers, right, tokens: [problems][samples]. Equal answers must be equally right. `budget`: response tokens a problem;
    each draw votes with as many samples as fit into it (`samples_in_budget`).
    """
    rng = np.random.default_rng(seed)
    found = np.zeros(len(answers))
    for i, (own, is_right, lengths) in enumerate(zip(answers, right, tokens, strict=True)):
        verdict = {answer: ok for answer, ok in zip(own, is_right, strict=True) if answer is not None}
        for _ in range(draws):
            order = rng.permutation(len(own))
            taken = order[: samples_in_budget([lengths[j] for j in order], budget)]
            found[i] += bool(verdict.get(vote([own[j] for j in taken]), False))
    return found / draws
