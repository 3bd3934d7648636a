"""A word tokenizer without a library, and rollouts from texts, for the tests of the rewards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from reasonloop.records import Group, Problem, Rollout, Verdict
from reasonloop.rewards.exploration import ExplorationReward

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


def tokens_rollout(prompt: np.ndarray, response: np.ndarray) -> Rollout:
    return Rollout("p", prompt, response, np.zeros(len(response), np.float32))


def rollout(text: str, right: bool = False, prompt: str = "what is six times seven ?", **parts: float) -> Rollout:
    tokens = encode(text)
    parts = {"outcome": float(right), **parts}
    return replace(
        tokens_rollout(encode(prompt), tokens),
        text=decode(tokens),
        verdict=Verdict.RIGHT if right else Verdict.WRONG,
        reward=sum(parts.values()),
        reward_parts=parts,
    )


def group(texts: Sequence[str], right: Sequence[bool] | None = None) -> list[Rollout]:
    flags = [False] * len(texts) if right is None else right
    return [rollout(text, flag) for text, flag in zip(texts, flags, strict=True)]


def rewarded(
    reward: ExplorationReward,
    problems: Sequence[Problem],
    groups: Sequence[Sequence[Rollout]],
    alpha: float,
) -> tuple[list[list[Rollout]], dict[str, float]]:
    asked = [Group(p, own[0].prompt_tokens, tuple(own)) for p, own in zip(problems, groups, strict=True)]
    found, measured = reward.reward(asked, alpha)
    return [list(group.rollouts) for group in found], measured
