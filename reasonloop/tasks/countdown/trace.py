"""Search behaviour read exactly from a Countdown trace: steps, dead ends, backtracks, and what each word does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from reasonloop.records import Problem
from reasonloop.tasks.countdown.search import OPERATIONS, STEP_WORDS, Numbers


class Span(NamedTuple):
    """A run of words with one role."""

    text: str
    kind: str
    """"step" | "wrong_step" (wrong arithmetic) | "illegal_step" (a number that is not available) | "dead_end" |
    "false_dead_end" | "backtrack" | "false_backtrack" | "success" | "false_success" | "answer" | "other" """


@dataclass(slots=True)
class Trace:
    """Counts over one trace.

    The search state is a stack: every step pushes, every `back` pops. A step with a number that is not available
    pushes the state unchanged, and one with wrong arithmetic is believed, so that one slip doesn't count again
    in all that follows.
    """

    steps: int = 0
    wrong_steps: int = 0
    """Steps with wrong arithmetic, illegal ones included"""
    illegal_steps: int = 0
    """Steps that use a number which is not available at that point"""
    attempts: int = 0
    """Steps that leave a single number: visits of a leaf"""
    solved: int = 0
    """Attempts that leave the target"""
    dead_ends: int = 0
    """`no` at a leaf that is not the target"""
    false_dead_ends: int = 0
    """`no` anywhere else"""
    backtracks: int = 0
    """Runs of one or more `back`"""
    steps_undone: int = 0
    """`back` words that undo a step"""
    false_backs: int = 0
    """`back` words with no step left to undo"""
    longest_backtrack: int = 0
    """Most steps undone in one run"""
    successes: int = 0
    """`yes` at a leaf that is the target"""
    false_successes: int = 0
    answer: bool = False
    """The word `answer` occurs"""
    other_words: int = 0
    """Words that are no part of the grammar where they stand"""
    spans: list[Span] = field(default_factory=list)
    """The whole text in order, word for word"""

    @property
    def faithful(self) -> bool:
        """Whether every word stands where the grammar allows it and says what is true."""
        return not (
            self.wrong_steps
            or self.illegal_steps
            or self.false_dead_ends
            or self.false_backs
            or self.false_successes
            or self.other_words
        )


def parse_trace(problem: Problem, text: str) -> Trace:
    """Reads a response of the trace format; never fails, linear in the length of the text."""
    target: int = problem.meta["target"]
    trace = Trace()
    stack: list[Numbers] = [tuple(sorted(problem.meta["numbers"]))]
    words = text.split()
    place = 0
    run = 0  # steps undone in the run of `back` that we are in
    while place < len(words):
        word = words[place]
        leaf = len(stack[-1]) == 1
        used = 1
        if word == "back":
            if place == 0 or words[place - 1] != "back":
                trace.backtracks += 1
                run = 0
            if len(stack) > 1:
                stack.pop()
                run += 1
                trace.steps_undone += 1
                trace.longest_backtrack = max(trace.longest_backtrack, run)
                kind = "backtrack"
            else:
                trace.false_backs += 1
                kind = "false_backtrack"
        elif word == "no":
            true = leaf and stack[-1][0] != target
            trace.dead_ends += true
            trace.false_dead_ends += not true
            kind = "dead_end" if true else "false_dead_end"
        elif word == "yes":
            true = stack[-1] == (target,)
            trace.successes += true
            trace.false_successes += not true
            kind = "success" if true else "false_success"
        elif word == "answer":
            trace.answer = True
            used = len(words) - place
            kind = "answer"
        elif (step := _step(words[place : place + STEP_WORDS])) is not None:
            used = STEP_WORDS
            kind = _take(trace, stack, step, target)
        else:
            trace.other_words += 1
            kind = "other"
        trace.spans.append(Span(" ".join(words[place : place + used]), kind))
        place += used
    return trace


def _step(words: Sequence[str]) -> tuple[int, str, int, int] | None:
    if len(words) < STEP_WORDS:
        return None
    left, op, right, equals, result, end = words
    if op not in OPERATIONS or equals != "=" or end != ";" or not all(map(_is_number, (left, right, result))):
        return None
    return int(left), op, int(right), int(result)


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) <= 9


def _take(trace: Trace, stack: list[Numbers], step: tuple[int, str, int, int], target: int) -> str:
    """Counts the step, pushes the state after it, and returns the kind of its span."""
    left, op, right, result = step
    trace.steps += 1
    exact = left == right * result and right != 0 if op == "/" else OPERATIONS[op](left, right) == result
    trace.wrong_steps += not exact
    rest = list(stack[-1])
    try:
        rest.remove(left)
        rest.remove(right)
    except ValueError:
        trace.illegal_steps += 1
        stack.append(stack[-1])
        return "illegal_step"
    stack.append(tuple(sorted([*rest, result])))
    if not rest:
        trace.attempts += 1
        trace.solved += result == target
    return "step" if exact else "wrong_step"
