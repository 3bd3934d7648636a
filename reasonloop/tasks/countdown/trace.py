"""What each word of a Countdown trace says, and whether it is true: steps, dead ends, backtracks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from reasonloop.records import Problem
from reasonloop.tasks.countdown.search import OPERATIONS, STEP_WORDS, Numbers


class Span(NamedTuple):
    """A run of words with one role."""

    text: str
    kind: str
    """"step" | "wrong_step" (wrong arithmetic) | "illegal_step" (a number that is not available) | "dead_end" |
    "false_dead_end" | "backtrack" | "false_backtrack" | "success" | "false_success" | "answer" | "other" """


def parse_trace(problem: Problem, text: str) -> list[Span]:
    """A response of the trace format, word for word in order; never fails, linear in the length of the text.

    `no` is true at a leaf (a single number) that is not the target, `yes` at one that is, `back` where a step is left to
    undo. The search state is a stack: every step pushes, every `back` pops. A step with a number that is not available
    pushes the state unchanged, and one with wrong arithmetic is believed, so that one slip doesn't count again in all
    that follows.
    """
    target: int = problem.meta["target"]
    stack: list[Numbers] = [tuple(sorted(problem.meta["numbers"]))]
    words = text.split()
    spans: list[Span] = []
    place = 0
    while place < len(words):
        word, state, used = words[place], stack[-1], 1
        if word == "back":
            kind = "backtrack" if len(stack) > 1 else "false_backtrack"
            if len(stack) > 1:
                stack.pop()
        elif word == "no":
            kind = "dead_end" if len(state) == 1 and state[0] != target else "false_dead_end"
        elif word == "yes":
            kind = "success" if state == (target,) else "false_success"
        elif word == "answer":
            kind, used = "answer", len(words) - place
        elif (step := _step(words[place : place + STEP_WORDS])) is not None:
            kind, after = _taken(state, *step)
            used = STEP_WORDS
            stack.append(after)
        else:
            kind = "other"
        spans.append(Span(" ".join(words[place : place + used]), kind))
        place += used
    return spans


def _step(words: Sequence[str]) -> tuple[int, str, int, int] | None:
    if len(words) < STEP_WORDS:
        return None
    left, op, right, equals, result, end = words
    if op not in OPERATIONS or equals != "=" or end != ";" or not all(map(_is_number, (left, right, result))):
        return None
    return int(left), op, int(right), int(result)


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) <= 9


def _taken(state: Numbers, left: int, op: str, right: int, result: int) -> tuple[str, Numbers]:
    """The kind of the step, and the state after it."""
    rest = list(state)
    try:
        rest.remove(left)
        rest.remove(right)
    except ValueError:
        return "illegal_step", state
    exact = left == right * result and right != 0 if op == "/" else OPERATIONS[op](left, right) == result
    return "step" if exact else "wrong_step", tuple(sorted([*rest, result]))
