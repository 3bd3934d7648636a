"""Self-consistency (Wang et al., arXiv 2203.11171): majority vote over several samples, at an equal token budget."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np


def samples_in_budget(tokens: Sequence[int], budget: float) -> int:
    """How many of the samples, in order, fit: their tokens sum to at most `budget`, but one is always taken."""
    return max(1, int(np.searchsorted(np.cumsum(tokens), budget, side="right")))


def vote(answers: Sequence[Hashable | None]) -> Hashable | None:
    """The most frequent answer; of equally frequent ones that which came first. None (no answer) has no vote."""
    counts: dict[Hashable, int] = {}
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
