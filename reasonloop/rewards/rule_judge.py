"""The effort judge as a rule of the user's own: a function from problem and response to a score, in killable workers.

Free of torch: workers import it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reasonloop.config.exploration import Judge
from reasonloop.errors import InputError
from reasonloop.own import load_own
from reasonloop.records import Judgement, Problem, Verdict
from reasonloop.verify.workers import VerifierPool, VerifierSpec


class Rule:
    """A `module:function` as a verifier: what a worker constructs. The score travels as the judgement's detail.

    Raises InputError if there is no such function.
    """

    def __init__(self, function: str) -> None:
        where, expected = f"exploration.judge.model = {function!r}", "a function of (problem, response)"
        self._function: Any = load_own(function, where, expected)
        if not callable(self._function):
            raise InputError(f"{where}: it is a {type(self._function).__name__}; expected {expected}")

    def verify(self, problem: Problem, response: str) -> Judgement:
        """RIGHT with the score as its detail, or UNPARSEABLE where it is no number from 0 to 1."""
        score = self._function(problem.prompt, response)
        try:
            if 0.0 <= float(score) <= 1.0:
                return Judgement(Verdict.RIGHT, repr(float(score)))
        except (TypeError, ValueError, OverflowError):
            pass
        return Judgement(Verdict.UNPARSEABLE, f"it returned {score!r}")


class RuleJudge:
    """Scores responses with the function that `options.model` names, each within `options.timeout_seconds`.

    Raises InputError if there is no such function.
    """

    def __init__(self, options: Judge) -> None:
        Rule(options.model)
        spec = VerifierSpec("reasonloop.rewards.rule_judge:Rule", {"function": options.model})
        self._pool = VerifierPool(spec, deadline=options.timeout_seconds)

    def scores(self, pairs: Sequence[tuple[str, str]]) -> list[float | str]:
        """A score in [0, 1], or the kind of the failure and why, for each (problem, response), in their order.

        Kinds: "timeout", "crashed" (it raised, or ended its process), "nonsense" (no number from 0 to 1).
        """
        judged = self._pool.verify([(Problem("judge", prompt=problem), response) for problem, response in pairs])
        kinds = {Verdict.UNPARSEABLE: "nonsense"}
        return [
            float(one.detail)
            if one.verdict is Verdict.RIGHT
            else f"{kinds.get(one.verdict, one.verdict)}: {one.detail}"
            for one in judged
        ]
