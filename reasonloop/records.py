"""The records that all rooms share: problem, verdict, place in a run, rollout, group. Frozen, and free of torch."""

from __future__ import annotations

import hashlib
import html
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from numbers import Real
from typing import Any

import numpy as np

from reasonloop.text import shown

LONGEST_DEADLINE = 86_400
"""Seconds, a day: no verdict, score or rank is waited for longer"""


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
    """Why, for a reader: what was extracted, or the error of a crash"""
    score: float | None = None
    """Partial credit, 0 to 1: the outcome reward in place of 1 for right and 0 otherwise. None: there is none"""


def as_judgement(result: object) -> Judgement:
    """What a verifier returned, as a judgement: a Judgement, a Verdict, or a verdict's name as text.

    Anything else is the verifier's crash, and so is a score that is no number from 0 to 1: CRASHED, with a detail that says
    what it was.
    """
    judgement = result if isinstance(result, Judgement) else Judgement(result)  # type: ignore[arg-type]
    if isinstance(judgement.verdict, str) and judgement.verdict in set(Verdict) and isinstance(judgement.detail, str):
        score = None if judgement.score is None else number_of(judgement.score)
        if score is None or 0.0 <= score <= 1.0:
            return Judgement(Verdict(judgement.verdict), judgement.detail, score)
        got = repr(judgement.score)[:100]
        return Judgement(
            Verdict.CRASHED, f"the verifier returned the score {got}, expected a number from 0 to 1, or None"
        )
    got = f"a {type(result).__name__}" if not isinstance(result, Judgement | str) else repr(result)[:100]
    return Judgement(Verdict.CRASHED, f"the verifier returned {got}, expected a Verdict or a Judgement")


def number_of(value: object) -> float:
    """A number as a float; NaN where it is none (a truth value, a text), or not finite."""
    try:
        found = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        return math.nan
    return found if math.isfinite(found) else math.nan


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

    @property
    def text(self) -> str:
        """The prompt as a reader sees it, without a chat template"""
        if self.messages is None:
            return self.prompt or ""
        return "\n".join(f"{message['role']}: {message['content']}" for message in self.messages)


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where in a run something belongs: the one key of store, metrics, checkpoints and draws."""

    branch: str = "main"
    """Which arm of the run: "main", or "vanilla" for the baseline beside it. One of several explorations side by side is
    the arm with its number from 1: "main.2"."""
    stage: str = "explore"
    iteration: int = 0
    step: int = 0
    """Step within the stage, from 0"""

    @property
    def name(self) -> str:
        """Of the stage as a whole, without the step: its checkpoint's"""
        return f"{self.branch}-{self.stage}-{self.iteration}"

    @property
    def keys(self) -> dict[str, Any]:
        """As they stand in a line of metrics.jsonl"""
        return {"stage": self.stage, "branch": self.branch, "iteration": self.iteration, "step": self.step}

    @property
    def trunk(self) -> str:
        """The branch without the number of one of several explorations side by side: what all of them are called"""
        return self.branch.partition(".")[0]

    @property
    def twin(self) -> tuple[int, ...]:
        """The number of one of several explorations side by side; empty for an arm's only one"""
        number = self.branch.partition(".")[2]
        return (int(number),) if number else ()

    @property
    def luck(self) -> str:
        """What its draws depend on beside the seed. The same for arms that are compared, its own for each of several
        explorations side by side."""
        stage = {"explore": "rl", "greedy": "solved"}.get(self.stage, self.stage)  # the names that draws began with
        return "\0".join(map(str, (stage, self.iteration, self.step, *(f"twin {n}" for n in self.twin))))

    def draw(self, seed: int, problem_id: str, sample: int) -> int:
        """64 bits that name one response's draws: equal ones draw equal uniforms, whatever the batch, the order or the
        machine."""
        text = f"{seed}\0{self.luck}\0{problem_id}\0{sample}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


@dataclass(frozen=True, slots=True, repr=False)
class Rollout:
    """One sampled response with everything that is known of it.

    Sampling fills the tokens, verification the verdict, rewards the reward; the learner trains on it and the
    store keeps it. (problem_id, place, sample) is unique within a run.
    """

    problem_id: str
    prompt_tokens: np.ndarray
    """int32 [prompt tokens]"""
    response_tokens: np.ndarray
    """int32 [response tokens], the stop token, or those of the stop text, included when there was one"""
    logprobs: np.ndarray
    """float32 [response tokens], nats: behaviour log-probs of the distribution that was really sampled from; 0 where the
    policy didn't sample; NaN where another trainer did, and kept none"""
    sampled: np.ndarray | None = None
    """bool [response tokens]: which of them the policy sampled; the others (a tool's answer, say) stand in the response
    and are context for what follows, with no loss and no entropy. None: all of them."""
    version: int = 0
    """Of the weights that sampled it: the learner's updates before"""
    finish: str = "stop"
    """"stop": ended with a stop token or text; "length": cut off at max_tokens; "unknown": another trainer didn't say"""
    text: str = ""
    """The decoded response, as the verifier sees it (special tokens removed)"""
    verdict: Verdict = Verdict.UNPARSEABLE
    detail: str = ""
    score: float | None = None
    """The verifier's partial credit, 0 to 1, if it gave one"""
    reward: float = 0.0
    reward_parts: Mapping[str, float] = field(default_factory=dict)
    place: Place = Place()
    sample: int = 0
    """Index within the problem's group in this step, from 0"""

    def __repr__(self) -> str:
        where = f"{self.problem_id}, step {self.step}, sample {self.sample}"
        worth = f"{self.verdict}, reward {self.reward:.3g}, {len(self.response_tokens)} tokens"
        return f"Rollout({where}: {worth}, {shown(self.text, 60)!r})"

    @property
    def branch(self) -> str:
        return self.place.branch

    @property
    def iteration(self) -> int:
        return self.place.iteration

    @property
    def step(self) -> int:
        return self.place.step

    @property
    def right(self) -> bool:
        return self.verdict is Verdict.RIGHT

    @property
    def outcome(self) -> float:
        """What the verifier says that the response is worth: its score, else 1 for right and 0 otherwise"""
        return float(self.right) if self.score is None else self.score

    @property
    def length(self) -> int:
        """Tokens that the policy sampled: what lengths, normalisers and limits count"""
        return len(self.response_tokens) if self.sampled is None else int(self.sampled.sum())

    @property
    def reward_without_kl(self) -> float:
        """The reward but for a KL penalty inside of it, which differs for every response"""
        return self.reward - self.reward_parts["kl"] if "kl" in self.reward_parts else self.reward

    @property
    def logprob(self) -> float:
        """Of the response as a whole, nats: the sum over the tokens that the policy sampled"""
        return sampled_sum(self.logprobs, self.sampled)


def sampled_sum(values: np.ndarray, sampled: np.ndarray | None) -> float:
    """The sum of [T] values over the tokens that the policy sampled, in float64."""
    return float(np.sum(values if sampled is None else values[sampled], dtype=np.float64))


@dataclass(frozen=True, slots=True, repr=False)
class Group:
    """One problem's responses of one step, which advantages and within-group rewards are made of. Printed (and shown in a
    notebook) it is the prompt, the gold answer, and each response with its verdict and reward."""

    problem: Problem
    prompt_tokens: np.ndarray
    """int32 [prompt tokens]"""
    rollouts: tuple[Rollout, ...] = ()
    reference: tuple[np.ndarray, ...] | None = None
    """For each rollout the log-probs of the policy that RL started from, float32 [response tokens]; None where nothing
    needs them"""

    sampling: Any = None
    """The distribution that the rollouts were drawn from, `reasonloop.config.Sampling`; None: not told"""

    def __repr__(self) -> str:
        right = sum(rollout.right for rollout in self.rollouts)
        return f"Group({shown(self.problem.text, 60)!r}: {right} of {len(self.rollouts)} right)"

    def __str__(self) -> str:
        head = [f"prompt  {shown(self.problem.text, 300)}", f"gold    {shown(self.problem.answer, 300)}"]
        rows = [f"{r.verdict:<11} {r.reward:6.3f}  {shown(r.text, 300)}" for r in self.rollouts]
        return "\n".join([*head, *rows])

    def _repr_html_(self) -> str:
        def cell(text: str) -> str:
            lines = "\n".join(shown(line, 2000) for line in text.split("\n"))
            return f'<td style="text-align: left; white-space: pre-wrap">{html.escape(lines)}</td>'

        rows = [("", "prompt", self.problem.text), ("", "gold", self.problem.answer)]
        rows += [(str(r.verdict), f"{r.reward:.3f}", r.text) for r in self.rollouts]
        return "<table>" + "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows) + "</table>"

    @property
    def rewards(self) -> np.ndarray:
        """float64 [rollouts]"""
        return np.array([rollout.reward for rollout in self.rollouts], dtype=np.float64)
