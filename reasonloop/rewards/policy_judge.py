"""The effort judge as a policy on this machine: the score it expects to give, by the probabilities of the ten digits.

Probability-weighted scoring as in G-Eval (arXiv 2303.16634, section 3): one forward pass a response, nothing sampled, and
finer than the digit that a small model would say.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reasonloop.config import Sampling
from reasonloop.config.exploration import Judge
from reasonloop.policy.policy import Policy
from reasonloop.records import Problem
from reasonloop.rewards.judge_prompt import ROLE, judge_prompt

LEAST_MASS = 0.5
"""Probability that the ten digits must have together; below it the model isn't answering with a score."""
_REPLY = "Reply with one digit and nothing else, from 0 (no effort at all) to 9 (the most)."


class PolicyJudge:
    """Scores responses with the policy at `options.model` (as `model.path` names one).

    Raises InputError if there is none, or if its chat template refuses a user's message.
    """

    def __init__(self, options: Judge, device: str = "cpu") -> None:
        self._options = options
        self._policy = Policy.load(options.model, device)
        tokenizer = self._policy.codec.tokenizer
        self._chat = bool(getattr(tokenizer, "chat_template", None))
        digits = [f"{'' if self._chat else ' '}{digit}" for digit in range(10)]
        self._digits = [np.asarray(tokenizer(text, add_special_tokens=False).input_ids, np.int32) for text in digits]
        self._prompt("", "")

    def scores(self, pairs: Sequence[tuple[str, str]]) -> list[float | str]:
        """The expected digit / 9, or the kind of the failure, for each (problem, response), in their order.

        Kinds: "nonsense" (the digits have less than LEAST_MASS of the probability together), "too_long" (the judge's
        context doesn't hold what it is asked).
        """
        prompts = [self._prompt(*pair) for pair in pairs]
        longest = self._policy.codec.context_length - max(len(digit) for digit in self._digits)
        fitting = [i for i, prompt in enumerate(prompts) if len(prompt) <= longest]
        logprobs = self._policy.score(
            [prompts[i] for i in fitting for _ in self._digits], self._digits * len(fitting), Sampling()
        )
        totals = np.array([part.sum(dtype=np.float64) for part in logprobs]).reshape(len(fitting), len(self._digits))
        results: list[float | str] = ["too_long"] * len(pairs)
        for i, probabilities in zip(fitting, np.exp(totals), strict=True):
            mass = float(probabilities.sum())
            results[i] = float(probabilities @ np.arange(10) / (9 * mass)) if mass >= LEAST_MASS else "nonsense"
        return results

    def _prompt(self, problem: str, response: str) -> np.ndarray:
        """One user's message (not every chat template knows a system's), or plain text that ends before the digit."""
        asked = judge_prompt(self._options, problem, response, "from 0 to 9")
        text = f"{ROLE}\n\n{asked}\n\n{_REPLY}"  # last, where small models heed it most
        if self._chat:
            return self._policy.codec.encode_prompt(Problem("judge", messages=({"role": "user", "content": text},)))
        return self._policy.codec.encode_prompt(Problem("judge", prompt=f"{text}\n\nScore:"))
