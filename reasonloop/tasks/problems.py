"""A task's problems, checked: what every command reads before it does anything with a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reasonloop.errors import InputError
from reasonloop.records import Problem
from reasonloop.tasks.base import ALL_SPLITS, DEMONSTRATIONS, Task
from reasonloop.text import is_text
from reasonloop.verify.worker import crash


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
    ids: set[str] = set()
    for number, problem in enumerate(problems, start=1):
        if not isinstance(problem, Problem):
            kind = type(problem).__name__
            raise InputError(
                f"task {name!r}: problem number {number} is a {kind}; expected a reasonloop.records.Problem"
            )
        if not isinstance(problem.id, str):
            raise InputError(f"task {name!r}: problem number {number} has the id {problem.id!r}; expected a str")
        if fault := _fault(problem):
            raise InputError(f"task {name!r}: problem {problem.id} has {fault}")
        if problem.id in ids:
            raise InputError(
                f"task {name!r}: two problems have the id {problem.id!r}; expected an id of its own for each"
            )
        ids.add(problem.id)
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
