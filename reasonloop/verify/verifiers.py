"""The verifiers for answers: exact, numeric and mathematical.

Each reads the gold answer from `Problem.answer`, which the task that loads a file has already extracted (see
`extract.gold_answer`). They are what a `VerifierSpec` names:

    VerifierSpec("reasonloop.verify.verifiers:NumericVerifier", {"extract": "final"})
"""

from __future__ import annotations

from reasonloop.errors import InputError
from reasonloop.records import Judgement, Problem, Verdict
from reasonloop.verify.answers import exact, numeric, prepare_symbolic, quick_math, symbolic
from reasonloop.verify.extract import STYLES, extract_answer, gold_response


class _AnswerVerifier:
    """Extract the answer, then compare it. Raises InputError for an unknown extraction style."""

    def __init__(self, extract: str) -> None:
        if extract not in STYLES:
            raise InputError(f"extract: got {extract!r}, expected one of {', '.join(STYLES)}")
        self.extract = extract

    def gold_response(self, problem: Problem) -> str:
        """A response that gives the problem's gold answer where this verifier looks for answers."""
        return gold_response(problem.answer, self.extract)

    def _extracted(self, response: str) -> str | Judgement:
        answer = extract_answer(response, self.extract)
        return Judgement(Verdict.UNPARSEABLE, f"no answer found ({self.extract})") if answer is None else answer


class ExactVerifier(_AnswerVerifier):
    """RIGHT if the answer is the gold answer's text (`answers.exact`). Bounded: never needs a worker."""

    def __init__(self, extract: str = "all") -> None:
        super().__init__(extract)

    def verify(self, problem: Problem, response: str) -> Judgement:
        answer = self._extracted(response)
        return answer if isinstance(answer, Judgement) else exact(answer, problem.answer)

    quick = verify


class NumericVerifier(_AnswerVerifier):
    """RIGHT if the answer is the gold answer's number, exactly (`answers.numeric`). Bounded: never needs a worker."""

    def __init__(self, extract: str = "final") -> None:
        super().__init__(extract)

    def verify(self, problem: Problem, response: str) -> Judgement:
        answer = self._extracted(response)
        return answer if isinstance(answer, Judgement) else numeric(answer, problem.answer)

    quick = verify


class MathVerifier(_AnswerVerifier):
    """RIGHT if the answer is mathematically the gold answer: `answers.quick_math`, else `answers.symbolic`."""

    def __init__(self, extract: str = "boxed") -> None:
        super().__init__(extract)

    def prepare(self) -> None:
        prepare_symbolic()

    def quick(self, problem: Problem, response: str) -> Judgement | None:
        answer = self._extracted(response)
        return answer if isinstance(answer, Judgement) else quick_math(answer, problem.answer)

    def verify(self, problem: Problem, response: str) -> Judgement:
        answer = self._extracted(response)
        if isinstance(answer, Judgement):
            return answer
        return quick_math(answer, problem.answer) or symbolic(answer, problem.answer)
