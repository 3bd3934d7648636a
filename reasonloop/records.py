"""The records that all rooms share: a problem, a verdict, a rollout. Frozen, and free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np


class Verdict(StrEnum):
    """What a verifier says of one response (five values that are stored and never merged)."""

    RIGHT = "right"
    WRONG = "wrong"
    UNPARSEABLE = "unparseable"
    TIMEOUT = "timeout"
    CRASHED = "crashed"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict with what led to it."""

    verdict: Verdict
    detail: str = ""
    """Why, for a reader: what was extracted, or the error of a crash. Not read by any code."""


def as_judgement(result: object) -> Judgement:
    """What a verifier returned, as a judgement: a Judgement, a Verdict, or a verdict's name as text.

    Anything else is the verifier's crash: CRASHED, with a detail that says what it was.
    """
    judgement = result if isinstance(result, Judgement) else Judgement(result)  # type: ignore[arg-type]
    if isinstance(judgement.verdict, str) and judgement.verdict in set(Verdict) and isinstance(judgement.detail, str):
        return Judgement(Verdict(judgement.verdict), judgement.detail)
    got = f"a {type(result).__name__}" if not isinstance(result, Judgement | str) else repr(result)[:100]
    return Judgement(Verdict.CRASHED, f"the verifier returned {got}, expected a Verdict or a Judgement")


@dataclass(frozen=True, slots=True)
class Problem:
    """One verifiable problem."""

    id: str
    """Unique within its task; part of every rollout's address, so that it must not change between runs."""
    prompt: str | None = None
    """Plain text that the policy continues; exactly one of `prompt` and `messages` is set."""
    messages: tuple[Mapping[str, str], ...] | None = None
    """Chat messages ({"role", "content"}), laid out by the tokenizer's chat template."""
    answer: str = ""
    """The gold answer, as the task's verifier reads it."""
    response: str | None = None
    """A worked demonstration, if there is one: the text that SFT learns to produce after the prompt."""
    split: str = "train"
    """"train" | "probe" (held out, may steer a run) | "test" (held out, only reported on) | "sft" (a demonstration alone:
    it has a response and no gold answer)."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else the task's verifier needs; plain JSON values."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """One sampled response with everything that is known of it.

    Sampling fills the tokens, verification the verdict, rewards the reward; the learner trains on it and the
    store keeps it. (problem_id, branch, iteration, step, sample) is unique within a run.
    """

    problem_id: str
    prompt_tokens: np.ndarray
    """int32 [prompt tokens]"""
    response_tokens: np.ndarray
    """int32 [response tokens], the stop token included when there was one"""
    logprobs: np.ndarray
    """float32 [response tokens], nats: behaviour log-probs of the distribution that was really sampled from"""
    finish: str = "stop"
    """"stop": ended with a stop token; "length": cut off at max_tokens"""
    text: str = ""
    """The decoded response, as the verifier sees it (special tokens removed)"""
    verdict: Verdict = Verdict.UNPARSEABLE
    detail: str = ""
    reward: float = 0.0
    reward_parts: Mapping[str, float] = field(default_factory=dict)
    branch: str = "main"
    """Which arm of the run: "main", or "vanilla" for the baseline beside it"""
    iteration: int = 0
    step: int = 0
    """RL step within the iteration, from 0"""
    sample: int = 0
    """Index within the problem's group in this step, from 0"""

    @property
    def right(self) -> bool:
        return self.verdict is Verdict.RIGHT
