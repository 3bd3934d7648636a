"""The effort judge as a rule of the user's own: a function from problem and response to a score, in killable workers.

Free of torch: workers import it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reasonloop.config.exploration import Judge
from reasonloop.records import Problem
from reasonloop.rewards.functions import OwnFunction, Value, number_in
from reasonloop.verify.workers import VerifierPool, VerifierSpec


class Rule(OwnFunction):
    """A function of two texts."""

    range = (0.0, 1.0)

    def __init__(self, function: str) -> None:
        super().__init__(function, "exploration.judge.model")

    def call(self, problem: Problem, response: str) -> Any:
        return self.function(problem.prompt, response)


class RuleJudge:
    """Scores responses with the function that `options.model` names, each within `options.timeout_seconds`.

    Raises InputError if there is no such function.
    """

    def __init__(self, options: Judge) -> None:
        Rule(options.model)
        spec = VerifierSpec("reasonloop.rewards.rule_judge:Rule", {"function": options.model})
        self._pool = VerifierPool(spec, deadline=options.timeout_seconds)

    def scores(self, pairs: Sequence[tuple[str, str]]) -> list[Value]:
        """A score in [0, 1], or the kind of the failure and why (`number_in`), for each (problem, response), in their
        order."""
        judged = self._pool.verify([(Problem("judge", prompt=problem), response) for problem, response in pairs])
        return [number_in(one) for one in judged]
