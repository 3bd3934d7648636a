"""A word tokenizer without a library, and rollouts from texts, for the tests of the rewards."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reasonloop.records import Problem, Rollout, Verdict

_WORDS: dict[str, int] = {}
_TEXTS: list[str] = []


def encode(text: str) -> np.ndarray:
    """One token a word."""
    for word in text.split():
        if word not in _WORDS:
            _WORDS[word] = len(_TEXTS)
            _TEXTS.append(word)
    return np.array([_WORDS[word] for word in text.split()], dtype=np.int32)


def decode(tokens: np.ndarray) -> str:
    return " ".join(_TEXTS[token] for token in tokens.tolist())


def problem(text: str = "what is six times seven ?") -> Problem:
    return Problem(id="p", prompt=text)


def rollout(text: str, right: bool = False, prompt: str = "what is six times seven ?", **parts: float) -> Rollout:
    tokens = encode(text)
    parts = {"outcome": float(right), **parts}
    return Rollout(
        problem_id="p",
        prompt_tokens=encode(prompt),
        response_tokens=tokens,
        logprobs=np.zeros(len(tokens), np.float32),
        text=decode(tokens),
        verdict=Verdict.RIGHT if right else Verdict.WRONG,
        reward=sum(parts.values()),
        reward_parts=parts,
    )


def group(texts: Sequence[str], right: Sequence[bool] | None = None) -> list[Rollout]:
    flags = [False] * len(texts) if right is None else right
    return [rollout(text, flag) for text, flag in zip(texts, flags, strict=True)]
