"""The verifiers for answers: exact, numeric and mathematical.

Each reads the gold answer from `Problem.answer`, which the task that loads a file has already extracted (see
`extract.gold_answer`). They are what a `VerifierSpec` names:

    VerifierSpec("reasonloop.verify.verifiers:NumericVerifier", {"extract": "final"})
"""

from __future__ import annotations

import re

from reasonloop.errors import InputError
from reasonloop.records import Judgement, Problem, Verdict
from reasonloop.verify.answers import MAX_QUICK, MAX_SYMBOLIC, PLAIN, exact, numeric, quick_math
from reasonloop.verify.extract import STYLES, extract_answer, gold_response
from reasonloop.verify.maths.choices import choices_in
from reasonloop.verify.maths.equal import Rules
from reasonloop.verify.symbolic import prepare_symbolic, symbolic


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

    def __init__(self, extract: str = "final", percent: str = "lenient") -> None:
        super().__init__(extract)
        self.percent = _known_percent(percent)

    def verify(self, problem: Problem, response: str) -> Judgement:
        answer = self._extracted(response)
        return (
            answer
            if isinstance(answer, Judgement)
            else numeric(answer, problem.answer, rules_of(problem, self.percent))
        )

    quick = verify


class MathVerifier(_AnswerVerifier):
    """RIGHT if the answer is mathematically the gold answer: `answers.quick_math`, else `answers.symbolic`.

    Where the problem lists choices, (A) ... (B) ..., an answer may be the letter or what stands behind it. `percent`:
    "lenient" (a gold answer with a percent sign, and a problem that asks for a percentage, take the number with the sign and
    without) or "strict" (10 and 10 % are two answers). Neither takes 10 % for 0.1.
    """

    def __init__(self, extract: str = "boxed", percent: str = "lenient") -> None:
        super().__init__(extract)
        self.percent = _known_percent(percent)

    def prepare(self) -> None:
        prepare_symbolic()

    def quick(self, problem: Problem, response: str) -> Judgement | None:
        answer = self._extracted(response)
        if isinstance(answer, Judgement):
            return answer
        if max(len(problem.answer), len(answer)) > MAX_QUICK and len(answer) <= MAX_SYMBOLIC:
            return None
        return self._by_value(problem, answer)

    def verify(self, problem: Problem, response: str) -> Judgement:
        answer = self._extracted(response)
        if isinstance(answer, Judgement):
            return answer
        judgement = self._by_value(problem, answer)
        return symbolic(answer, problem.answer) if judgement is None else judgement

    def _by_value(self, problem: Problem, answer: str) -> Judgement | None:
        rules = rules_of(problem, self.percent)
        judgement = quick_math(answer, problem.answer, rules)
        if judgement is None or judgement.verdict is Verdict.RIGHT:
            return judgement
        return self._by_choice(problem, answer, rules) or judgement

    def _by_choice(self, problem: Problem, answer: str, rules: Rules) -> Judgement | None:
        """RIGHT where the letter of one side stands for what the other says, else None."""
        gold = _LETTER.fullmatch(problem.answer.strip())
        given = _LETTER.fullmatch(answer.strip())
        if bool(gold) == bool(given):
            return None
        letter = gold or given
        assert letter is not None
        content = choices_in(prompt_text(problem)).get(letter[1])
        if content is None:
            return None
        judgement = quick_math(answer, content, rules) if gold else quick_math(content, problem.answer, rules)
        return judgement if judgement is not None and judgement.verdict is Verdict.RIGHT else None


_LETTER = re.compile(r"(?:\$|\\(?:text|textbf|mathrm|mathbf)\s*\{|\()*([A-J])[.)}$:\s]*")
_ASKS_FOR_PERCENT = re.compile(
    r"\b(?:what|which|how\s+many|find|calculate|compute|determine|express|give|write)\b[^.?!,0-9]{0,100}\bpercent(?:age)?\b"
    r"|\bas\s+a\s+percent|\bin\s+percent\b",
    re.IGNORECASE,
)
_LONGEST_PROMPT = 20_000


def _known_percent(percent: str) -> str:
    if percent not in ("lenient", "strict"):
        raise InputError(f"percent: got {percent!r}, expected 'lenient' or 'strict'")
    return percent


def prompt_text(problem: Problem) -> str:
    """What a problem asks, its messages joined; of a very long one the end."""
    turns = problem.messages or ()
    return (problem.prompt or "\n".join(turn["content"] for turn in turns))[-_LONGEST_PROMPT:]


def rules_of(problem: Problem, percent: str) -> Rules:
    """How a problem's answers are compared. `percent` as in `MathVerifier`."""
    if percent == "strict":
        return _STRICT
    text = prompt_text(problem)
    return _ASKED if "ercent" in text and _ASKS_FOR_PERCENT.search(text) else PLAIN


_STRICT, _ASKED = Rules(strict_percent=True), Rules(percent=True)
