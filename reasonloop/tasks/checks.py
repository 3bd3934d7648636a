"""What every command checks before it does anything with a task: its problems, and that its gold answers verify as right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from reasonloop.errors import InputError
from reasonloop.records import Judgement, Problem, Verdict, as_judgement
from reasonloop.tasks.base import ALL_SPLITS, DEMONSTRATIONS, Task, gold_response, quick_judgement
from reasonloop.tasks.files import row_name
from reasonloop.text import is_text
from reasonloop.verify.answers import one_line
from reasonloop.verify.worker import crash

_NAMED = 20


class Pool(Protocol):
    """What the check needs of reasonloop.verify.workers.VerifierPool."""

    def verify(self, items: Sequence[tuple[Problem, str]]) -> list[Judgement]:
        """Judgements of (problem, response) pairs, in order."""


def task_problems(task: Task, name: str) -> Sequence[Problem]:
    """All problems of the task `name`; `problems()` is called once.

    Raises InputError, naming the task and the first bad problem, if `problems()` fails, or unless each is a Problem
    with an id of its own, one of the splits, and fields of the types that `records.Problem` gives.
    """
    try:
        problems = list(task.problems())
    except InputError:
        raise
    except Exception as error:  # whatever a class of the user's own raises
        raise InputError(
            f"task {name!r}: problems() failed ({crash(error).detail}); expected a sequence of Problem"
        ) from None
    seen: dict[str, Problem] = {}
    for number, problem in enumerate(problems, start=1):
        if not isinstance(problem, Problem):
            fault = f"problem number {number} is a {type(problem).__name__}; expected a reasonloop.records.Problem"
        elif not isinstance(problem.id, str):
            fault = f"problem number {number} has the id {problem.id!r}; expected a str"
        elif wrong := _fault(problem):
            fault = f"problem {problem.id} has {wrong}"
        elif problem.id in seen:
            rows = f"{row_name(problem)} and {row_name(seen[problem.id])}"
            fault = f"two problems have the id {problem.id!r} ({rows}); expected an id of its own for each"
        else:
            seen[problem.id] = problem
            continue
        raise InputError(f"task {name!r}: {fault}")
    return problems


def _fault(problem: Problem) -> str | None:
    """What is wrong with the problem's fields: what it has, and what was expected."""
    if problem.split not in ALL_SPLITS:
        return f"split {problem.split!r}; expected {ALL_SPLITS}"
    if problem.split == DEMONSTRATIONS and problem.response is None:
        return f"split {problem.split!r} and no response; expected one to learn from"
    if (problem.prompt is None) == (problem.messages is None):
        had = "neither prompt nor messages" if problem.prompt is None else "both prompt and messages"
        return f"{had}; expected exactly one of them"
    for key in ("prompt", "answer", "response"):
        value = getattr(problem, key)
        if not isinstance(value, str) and (value is not None or key == "answer"):
            return f"{key} {value!r}; expected a str"
        if value is not None and not is_text(value):
            return f"{key} {value!r}, which holds half of a surrogate pair; expected text"
    if problem.messages is not None and not (
        isinstance(problem.messages, Sequence) and problem.messages and all(map(_is_message, problem.messages))
    ):
        return f"messages {problem.messages!r}; expected some of the form {{'role': str, 'content': str}}"
    if not isinstance(problem.meta, Mapping):
        return f"meta {problem.meta!r}; expected a mapping"
    return None


def _is_message(message: object) -> bool:
    return isinstance(message, Mapping) and all(
        isinstance(message.get(key), str) and is_text(message[key]) for key in ("role", "content")
    )


def check_task(task: Task, problems: Sequence[Problem], pool: Pool | None = None) -> list[tuple[Problem, Judgement]]:
    """Those of the problems whose own gold answers do not verify as right, with their judgements. Demonstrations have none.

    Without a pool `verify` is called in this process, so that a hang of the verifier hangs the check.
    """
    judged: list[tuple[Problem, Judgement]] = []
    open_items: list[tuple[Problem, str]] = []
    for problem in problems:
        if problem.split == DEMONSTRATIONS:
            continue
        try:
            response = gold_response(task, problem)
            if response is None:
                judgement: Judgement | None = Judgement(Verdict.UNPARSEABLE, "the problem has no gold answer")
            elif (judgement := quick_judgement(task, problem, response)) is None:
                open_items.append((problem, response))
        except Exception as error:  # whatever a class of the user's own raises
            judgement = crash(error)
        if judgement is not None:
            judged.append((problem, judgement))
    if pool is None:
        late = [as_judgement(task.verify(*item)) for item in open_items]
    else:
        late = pool.verify(open_items) if open_items else []
    judged += [(problem, judgement) for (problem, _), judgement in zip(open_items, late, strict=True)]
    return [(problem, judgement) for problem, judgement in judged if judgement.verdict is not Verdict.RIGHT]


def require_gold(task: Task, problems: Sequence[Problem], pool: Pool | None = None, name: str = "task") -> None:
    """Raises InputError, naming the first rows, if any of the problems' gold answers does not verify as right."""
    failed = check_task(task, problems, pool)
    if not failed:
        return
    shown = "; ".join(
        f"{row_name(problem)}: answer {one_line(problem.answer, 60)!r} is {judgement.verdict.value}"
        + (f" ({one_line(judgement.detail, 100)!r})" if judgement.detail else "")
        for problem, judgement in failed[:_NAMED]
    )
    more = f"; and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
    raise InputError(
        f"{name}: {len(failed)} gold answers do not verify as right: {shown}{more}; expected every answer to verify "
        "against itself: correct these rows, or choose another verifier or extract style"
    )
