"""Rollouts for the store's tests: made in one line, compared bit by bit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from reasonloop.records import Place, Rollout, Verdict


def rollout(problem: str, step: int = 0, sample: int = 0, tokens: Sequence[int] = (1, 2), **fields: Any) -> Rollout:
    branch, iteration = fields.pop("branch", "main"), fields.pop("iteration", 0)
    return Rollout(
        problem_id=problem,
        prompt_tokens=np.array([7, 8, 9], dtype=np.int32),
        response_tokens=np.array(tokens, dtype=np.int32),
        logprobs=-np.arange(len(tokens), dtype=np.float32),
        place=Place(branch, iteration=iteration, step=step),
        sample=sample,
        **{"verdict": Verdict.RIGHT, **fields},
    )


def bits(rollouts: Iterable[Rollout]) -> list[tuple[Any, ...]]:
    """Everything that a rollout holds, in a form whose equality is that of bits (NaN and -0.0 included)."""
    return [
        (
            *(r.problem_id, r.finish, r.text, r.verdict, type(r.verdict), r.detail),
            *(r.place, r.sample, r.version, np.float64(r.reward).tobytes()),
            None if r.score is None else np.float64(r.score).tobytes(),
            None if r.sampled is None else (r.sampled.dtype.str, r.sampled.tobytes()),
            *[(key, np.float64(value).tobytes()) for key, value in r.reward_parts.items()],
            *[(a.dtype.str, a.shape, a.tobytes()) for a in (r.prompt_tokens, r.response_tokens, r.logprobs)],
        )
        for r in rollouts
    ]
