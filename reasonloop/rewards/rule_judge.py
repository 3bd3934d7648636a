"""The effort judge as a rule of the user's own: a function from problem and response to a score, in killable workers.

Free of torch: workers import it.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from reasonloop.config.exploration import Judge
from reasonloop.errors import InputError
from reasonloop.records import Judgement, Problem, Verdict
from reasonloop.verify.workers import VerifierPool, VerifierSpec


class Rule:
    """A `module:function` as a verifier: what a worker constructs. The score travels as the judgement's detail."""

    def __init__(self, function: str) -> None:
        module, _, name = function.partition(":")
        self._function: Any = getattr(importlib.import_module(module), name)
        if not callable(self._function):
            raise TypeError(f"{name} is a {type(self._function).__name__}, expected a function")

    def verify(self, problem: Problem, response: str) -> Judgement:
        """RIGHT with the score as its detail, or UNPARSEABLE where it is no number from 0 to 1."""
        score = self._function(problem.prompt, response)
        try:
            value = float(score)
        except (TypeError, ValueError, OverflowError):
            return Judgement(Verdict.UNPARSEABLE, f"it returned a {type(score).__name__}")
        right = 0.0 <= value <= 1.0
        return (
            Judgement(Verdict.RIGHT, repr(value)) if right else Judgement(Verdict.UNPARSEABLE, f"it returned {value}")
        )


class RuleJudge:
    """Scores responses with the function that `options.model` names, each within `options.timeout_seconds`.

    Raises InputError if there is no such function.
    """

    def __init__(self, options: Judge) -> None:
        spec = VerifierSpec("reasonloop.rewards.rule_judge:Rule", {"function": options.model})
        try:
            self._pool = VerifierPool(spec, deadline=options.timeout_seconds)
        except InputError as error:
            reason = str(error.__cause__ or error)
            raise InputError(
                f"exploration.judge.model = {options.model!r}: {reason}; expected a function of (problem, response) in "
                "an installed module or one in the current directory"
            ) from None

    def scores(self, pairs: Sequence[tuple[str, str]]) -> tuple[list[float | None], Counter[str]]:
        """A score in [0, 1] or None for each (problem, response), in their order, and how many failed, by kind.

        Kinds: "timeout", "crashed" (it raised, or ended its process), "nonsense" (no number from 0 to 1).
        """
        judgements = self.judgements(pairs)
        results = [float(judged.detail) if judged.verdict is Verdict.RIGHT else None for judged in judgements]
        failed = (judged.verdict for judged in judgements if judged.verdict is not Verdict.RIGHT)
        return results, Counter("nonsense" if v is Verdict.UNPARSEABLE else str(v) for v in failed)

    def judgements(self, pairs: Sequence[tuple[str, str]]) -> list[Judgement]:
        """What `Rule.verify` says of each pair: the score, or why there is none, is the detail."""
        return self._pool.verify([(Problem("judge", prompt=problem), response) for problem, response in pairs])
