"""The gold check: a task's own gold answers must verify as right before anything is trained on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from reasonloop.errors import InputError
from reasonloop.records import Judgement, Problem, Verdict, as_judgement
from reasonloop.tasks.base import DEMONSTRATIONS, Task, gold_response, quick_judgement
from reasonloop.verify.worker import crash

_NAMED = 3


class Pool(Protocol):
    """What the check needs of reasonloop.verify.workers.VerifierPool."""

    def verify(self, items: Sequence[tuple[Problem, str]]) -> list[Judgement]:
        """Judgements of (problem, response) pairs, in order."""


def check_task(task: Task, problems: Sequence[Problem], pool: Pool | None = None) -> list[tuple[Problem, Judgement]]:
    """Those of the problems whose own gold answers do not verify as right, with their judgements. Demonstrations have none.

    Without a pool `verify` is called in this process, so that a hang of the verifier hangs the check.
    """
    failed: list[tuple[Problem, Judgement]] = []
    open_items: list[tuple[Problem, str]] = []
    for problem in problems:
        if problem.split == DEMONSTRATIONS:
            continue
        try:
            response = gold_response(task, problem)
            if response is None:
                failed.append((problem, Judgement(Verdict.UNPARSEABLE, "the problem has no gold answer")))
                continue
            judgement = quick_judgement(task, problem, response)
        except Exception as error:  # whatever a class of the user's own raises
            failed.append((problem, crash(error)))
            continue
        if judgement is None:
            open_items.append((problem, response))
        elif judgement.verdict is not Verdict.RIGHT:
            failed.append((problem, judgement))
    if pool is not None:
        judged = pool.verify(open_items) if open_items else []
    else:
        judged = [as_judgement(task.verify(*item)) for item in open_items]
    failed += [
        (problem, judgement)
        for (problem, _), judgement in zip(open_items, judged, strict=True)
        if judgement.verdict is not Verdict.RIGHT
    ]
    return failed


def require_gold(task: Task, problems: Sequence[Problem], pool: Pool | None = None, name: str = "task") -> None:
    """Raises InputError, naming the first rows, if any of the problems' gold answers does not verify as right."""
    failed = check_task(task, problems, pool)
    if not failed:
        return
    shown = "; ".join(
        f"{row_name(problem)}: answer {_short(problem.answer)} is {judgement.verdict.value}"
        + (f" ({_short(judgement.detail)})" if judgement.detail else "")
        for problem, judgement in failed[:_NAMED]
    )
    more = f"; and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
    raise InputError(
        f"{name}: {len(failed)} gold answers do not verify as right: {shown}{more}; expected every answer to verify "
        "against itself: correct these rows, or choose another verifier or extract style"
    )


def row_name(problem: Problem) -> str:
    """`train.jsonl line 17` where the problem came from a file, else its id."""
    file, line = problem.meta.get("file"), problem.meta.get("line")
    return f"{file} line {line}" if file is not None and line is not None else problem.id


def _short(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= 60 else text[:57] + "...")
