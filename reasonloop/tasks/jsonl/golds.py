"""What the verifier makes of a file's gold answers: which it reads, which only as text, and which are none."""

from __future__ import annotations

from reasonloop.records import Problem, Verdict
from reasonloop.tasks.files import row_name, shown
from reasonloop.tasks.jsonl.sift import FAILS, Sifted
from reasonloop.tasks.report import BadRow
from reasonloop.verify.extract import gold_response
from reasonloop.verify.golds import gold_reading
from reasonloop.verify.verifiers import ExactVerifier, MathVerifier, NumericVerifier

SUSPICIOUS, TEXT_ONLY = "suspicious gold answer", "gold answer as text"


def read_golds(sifted: Sifted, verifier: MathVerifier | NumericVerifier | ExactVerifier, skip: bool) -> None:
    """Counts the file's gold answers by what `verifier` can read of them.

    With `skip` those become bad rows that aren't even right themselves, or that no response could be right for. (Without,
    the first are refused where they are needed: `checks.require_gold`.)
    """
    left_out: dict[str, BadRow] = {}
    for problem in sifted.problems:
        row, usable = _fault(problem, verifier) if problem.answer else (None, True)
        if row is None:
            sifted.readable += bool(problem.answer)
        elif row.kind == TEXT_ONLY:
            sifted.text.append(row)
        elif skip and not usable:
            left_out[row.place] = row
        else:
            sifted.suspicious.append(row)
    if left_out:
        sifted.drop(left_out)


def _fault(problem: Problem, verifier: MathVerifier | NumericVerifier | ExactVerifier) -> tuple[BadRow | None, bool]:
    """(what is to be said of a gold answer, whether a response could be right)."""
    place = row_name(problem)
    mathematics = isinstance(verifier, MathVerifier)
    judged = verifier.quick(problem, gold_response(problem.answer, verifier.extract))
    if judged is not None and judged.verdict is not Verdict.RIGHT:
        reason = (gold_reading(problem.answer).reason if mathematics else "") or judged.detail
        return BadRow(place, FAILS, f"answer {shown(problem.answer)!r} is {judged.verdict.value} ({reason})"), False
    reading = gold_reading(problem.answer, problem.response) if mathematics else None
    if reading is None or reading.kind == "readable":
        return None, True
    return BadRow(place, TEXT_ONLY if reading.kind == "text" else SUSPICIOUS, reading.reason), reading.usable
