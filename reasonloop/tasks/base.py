"""What a task is: problems, and a verifier of responses to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from reasonloop.records import Judgement, Problem, Verdict, as_judgement

SPLITS = ("train", "probe", "test")
DEMONSTRATIONS = "sft"
"""The split of problems without a gold answer: SFT learns from their response, nothing else sees them"""
ALL_SPLITS = (*SPLITS, DEMONSTRATIONS)


@runtime_checkable
class Task(Protocol):
    """The least that a task has. A class of the user's own is constructed with its options as keyword arguments.

    Optional further methods, looked up by name (see the functions of `reasonloop.tasks`):

    - `quick(problem, response) -> Judgement | None`: a verdict that is safe to reach in the calling process, in bounded
      time; None leaves the response to `verify` in a killable worker.
    - `prepare() -> None`: slow imports, called once in a worker before the first deadline starts.
    - `demonstrations(n, seed, **options) -> Iterator[tuple[Problem, str]]`: problems with responses for SFT.
    - `answer(problem, response) -> str | None`: the final answer in a response, in bounded time. Evaluations let responses
      vote by it (maj@n), so that answers of one value should be as right as one another.
    - `answer_end(problem, text) -> int | None`: where in a response the first final answer ends (a character offset).
    - `gold_response(problem) -> str`: a response that must verify as right.
    """

    def problems(self) -> Sequence[Problem]:
        """All problems of all splits ("train", "probe", "test"), in an order that never changes."""

    def verify(self, problem: Problem, response: str) -> Verdict | Judgement:
        """Judges the response. May be slow or crash: it runs in a killable worker."""


def quick_judgement(task: Task, problem: Problem, response: str) -> Judgement | None:
    """The task's verdict in bounded time in this process, or None: then `verify` is needed, in a worker."""
    quick = getattr(task, "quick", None)
    result = None if quick is None else quick(problem, response)
    return None if result is None else as_judgement(result)


def gold_response(task: Task, problem: Problem) -> str | None:
    """A response that must verify as right: the task's own, else the worked response, else the bare answer."""
    own = getattr(task, "gold_response", None)
    if own is not None:
        return own(problem)
    return problem.response or problem.answer or None


def demonstrations(task: Task, n: int, seed: int, **options: Any) -> Iterator[tuple[Problem, str]]:
    """The task's own generator, or the training problems (those that only demonstrate, too) that carry a worked response.

    `n` = 0 takes all there are; a generator without an end then yields nothing, so give it a number.
    """
    own = getattr(task, "demonstrations", None)
    if own is not None:
        yield from own(n, seed, **options)
        return
    found = 0
    for problem in task.problems():
        if problem.split in ("train", DEMONSTRATIONS) and problem.response is not None:
            yield problem, problem.response
            found += 1
            if found == n:
                return
