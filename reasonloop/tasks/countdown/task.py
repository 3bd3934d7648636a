"""Countdown: make the target from all the numbers, each exactly once, with + - * /."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from random import Random
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from reasonloop.config.section import Section, validated
from reasonloop.errors import InputError
from reasonloop.records import Judgement, Problem, Verdict
from reasonloop.tasks.countdown.expression import ExpressionError, parse_expression
from reasonloop.tasks.countdown.search import (
    MAX_VALUE,
    Numbers,
    best_first_search,
    expression,
    search,
    shortest_trace,
    solution_counts,
    solution_path,
    success_words,
)

# Shares of the space of problems, in percent. A problem's split follows from a hash of its numbers and target alone,
# so that no demonstration or training problem, of any seed, options or version, is ever a held-out one.
_TRAIN_BELOW, _PROBE_BELOW = 80, 85
_BOX = re.compile(r"\\boxed\s*\{")
_ANSWER_WORD = re.compile(r"(?i:\banswer\b(?: is)?\s*:?)")
_ANSWER = re.compile(rf"({_ANSWER_WORD.pattern})[\s\d()+\-*/x\u00d7\u00b7\u00f7\u2212$]*")
_FRUITLESS_DRAWS = 20_000
_FAILED_SEARCHES = 2_000
_INSTRUCTION = (
    "Use each of the numbers {numbers} exactly once, with + - * / and brackets, to make {target}. "
    "Think step by step, then write the expression"
)
_ENDING = {"answer": " on the last line, after 'Answer:'.", "boxed": " inside \\boxed{}."}


class Countdown:
    """Generated Countdown problems, split for good by a hash of (numbers, target)."""

    class Options(Section):
        numbers: tuple[int, ...] = (3, 4)
        """How many numbers a problem has: one count, or several that are mixed in equal shares (2 to 5)."""
        max_number: int = Field(12, ge=2, le=100)
        """Given numbers are drawn from 1 to this."""
        min_target: int = Field(10, ge=1)
        """The smallest target."""
        max_target: int = Field(100, ge=1, le=MAX_VALUE)
        """The largest target."""
        max_solutions: int = Field(0, ge=0)
        """Keep problems with at most this many distinct solutions (few: hard); 0 keeps all solvable ones."""
        train: int = Field(2000, ge=0)
        """Training problems."""
        probe: int = Field(64, ge=0)
        """Held-out problems that may steer a run."""
        test: int = Field(200, ge=0)
        """Held-out problems that are only reported on."""
        seed: int = 0
        """Which problems are drawn; the splits stay disjoint across seeds."""
        format: Literal["trace", "plain", "chat"] = "trace"
        """Prompts: `46 from 3 7 25 :` for the bundled model, or instructions in words as text or chat messages."""
        extract: Literal["answer", "boxed"] = "answer"
        """Where the final expression is: after the one word `answer` (any case, a colon may follow) or in \\boxed{}."""

        @field_validator("numbers", mode="before")
        @classmethod
        def _one_count(cls, value: Any) -> Any:
            return (value,) if isinstance(value, int) else value

        @model_validator(mode="after")
        def _check(self) -> Countdown.Options:
            if not self.numbers or not all(2 <= count <= 5 for count in self.numbers):
                raise ValueError("numbers: expected one or more counts between 2 and 5")
            if self.min_target > self.max_target:
                raise ValueError(f"min_target {self.min_target} is above max_target {self.max_target}")
            return self

    class DemonstrationOptions(Section):
        search: Literal["depth_first", "best_first"] = "depth_first"
        """How the searcher goes on after a dead end: back to the last node with steps left, or to the most promising
        one of all."""
        skill: float = Field(0.5, ge=0, le=1)
        """How often a node of the search tries steps that lead to a solution first: 0 is blind, 1 never goes wrong."""
        breadth: int = Field(3, ge=0)
        """Steps tried at a node below the root before the search goes back; 0 for all of them."""
        max_words: int = Field(160, ge=20)
        """Longest trace in words (= tokens of the bundled tokenizer), without the end-of-text token."""
        success_only: bool = True
        """Drop searches that fail or run out of words; otherwise they are kept and end without an answer."""
        max_solutions: int = Field(0, ge=0)
        """Draw from problems with at most this many distinct solutions; 0 draws from all solvable ones."""

    def __init__(self, **options: Any) -> None:
        self.options = validated(self.Options, options, "task countdown")

    def problems(self) -> Sequence[Problem]:
        return self._problems

    @cached_property
    def _problems(self) -> tuple[Problem, ...]:
        sizes = {"train": self.options.train, "probe": self.options.probe, "test": self.options.test}
        return tuple(problem for split, size in sizes.items() for problem in self._draw_split(split, size))

    def _draw_split(self, split: str, size: int) -> list[Problem]:
        counts = self.options.numbers
        found: dict[str, Problem] = {}
        for index, count in enumerate(counts):
            # a generator per split and count: a size changed in one place leaves all other problems as they were
            rng = Random(f"countdown {self.options.seed} {split} {count}")
            share = size // len(counts) + (index < size % len(counts))
            wanted, fruitless = len(found) + share, 0
            while len(found) < wanted:
                problem = self._draw(rng, count, split, self.options.max_solutions)
                fruitless = fruitless + 1 if problem is None or problem.id in found else 0
                if problem is not None:
                    found.setdefault(problem.id, problem)
                if fruitless >= _FRUITLESS_DRAWS:
                    raise InputError(
                        f"task countdown: {split} = {size}: only {len(found)} such problems were found "
                        f"(numbers = {count}, max_number = {self.options.max_number}, "
                        f"max_solutions = {self.options.max_solutions}); "
                        "ask for fewer, or loosen the other options"
                    )
        return list(found.values())

    def _draw(self, rng: Random, count: int, split: str, max_solutions: int) -> Problem | None:
        """Uniform numbers, then a uniform target among those that fit; None where none does."""
        numbers = tuple(sorted(rng.randint(1, self.options.max_number) for _ in range(count)))
        targets = [
            target
            for target, solutions in sorted(solution_counts(numbers).items())
            if self.options.min_target <= target <= self.options.max_target
            and (not max_solutions or solutions <= max_solutions)
            and split_of(numbers, target) == split
        ]
        return self._problem(numbers, rng.choice(targets), split) if targets else None

    def _problem(self, numbers: Numbers, target: int, split: str) -> Problem:
        prompt: str | None = f"{target} from {' '.join(map(str, numbers))} :"
        messages = None
        if self.options.format != "trace":
            asked = (
                _INSTRUCTION.format(numbers=", ".join(map(str, numbers)), target=target) + _ENDING[self.options.extract]
            )
            plain = self.options.format == "plain"
            prompt, messages = (asked + "\n", None) if plain else (None, ({"role": "user", "content": asked},))
        return Problem(
            id=f"countdown-{len(numbers)}-{target}-{'.'.join(map(str, numbers))}",
            prompt=prompt,
            messages=messages,
            answer=expression(numbers, solution_path(numbers, target)),
            split=split,
            meta={"numbers": list(numbers), "target": target, "solutions": solution_counts(numbers)[target]},
        )

    def verify(self, problem: Problem, response: str) -> Judgement:
        """Judges the final expression, and only that: linear time, nothing is executed."""
        try:
            text = final_expression(response, self.options.extract)
            parsed = parse_expression(text)
        except ExpressionError as error:
            return Judgement(Verdict.UNPARSEABLE, str(error))
        shown = text.strip()
        given = sorted(problem.meta["numbers"])
        if sorted(parsed.numbers) != given:
            return Judgement(Verdict.WRONG, f"{shown} does not use exactly {' '.join(map(str, given))}")
        try:
            value = parsed.value()
        except ZeroDivisionError:
            return Judgement(Verdict.WRONG, f"{shown} divides by zero")
        if value != problem.meta["target"]:
            return Judgement(Verdict.WRONG, f"{shown} = {value}, not {problem.meta['target']}")
        return Judgement(Verdict.RIGHT, shown)

    def quick(self, problem: Problem, response: str) -> Judgement:
        return self.verify(problem, response)

    def answer(self, problem: Problem, response: str) -> str | None:
        """The final expression: different ones are different answers, also where both are right."""
        try:
            return " ".join(final_expression(response, self.options.extract).split()) or None
        except ExpressionError:
            return None

    def gold_response(self, problem: Problem) -> str:
        """The shortest trace in trace format, else just the expression in the style that is asked for."""
        if self.options.format == "trace" and self.options.extract == "answer":
            numbers = tuple(problem.meta["numbers"])
            path = solution_path(numbers, problem.meta["target"])
            return " ".join([w for step in path for w in step.words()] + success_words(numbers, path))
        return f"\\boxed{{{problem.answer}}}" if self.options.extract == "boxed" else f"Answer: {problem.answer}"

    def demonstrations(self, n: int, seed: int, **options: Any) -> Iterator[tuple[Problem, str]]:
        """`n` problems of the training part of the space with search traces, from randomised tree search.

        Problems may repeat in a long stream. Options: DemonstrationOptions; InputError if they leave nothing to draw.
        """
        chosen = validated(self.DemonstrationOptions, options, "demonstrations of task countdown")
        rng = Random(f"countdown demonstrations {seed}")
        searcher = search if chosen.search == "depth_first" else best_first_search
        for index in range(n):
            count = self.options.numbers[index % len(self.options.numbers)]
            for _ in range(_FAILED_SEARCHES if chosen.max_words >= shortest_trace(count) else 0):
                problem = self._draw(rng, count, "train", chosen.max_solutions)
                if problem is None:
                    continue
                trace = searcher(
                    tuple(problem.meta["numbers"]),
                    problem.meta["target"],
                    rng,
                    skill=chosen.skill,
                    max_words=chosen.max_words,
                    breadth=chosen.breadth,
                )
                if trace.solved or not chosen.success_only:
                    yield problem, " ".join(trace.words)
                    break
            else:
                raise InputError(
                    f"demonstrations of task countdown: no search with {count} numbers succeeds (max_words = "
                    f"{chosen.max_words}, skill = {chosen.skill}, max_solutions = {chosen.max_solutions}); expected "
                    f"max_words of {shortest_trace(count)} or more: raise it or skill, or loosen the other options"
                )

    def answer_end(self, problem: Problem, text: str) -> int | None:
        """Behind the first final expression: its words or its box."""
        if self.options.extract == "boxed":
            box = _BOX.search(text)
            return text.find("}", box.end()) + 1 or None if box else None
        found = _ANSWER.search(text)
        if found is None:
            return None
        return min(found.end(), found.end(1) + 10 * len(problem.meta["numbers"]))  # figures behind it are no part of it


def split_of(numbers: Numbers, target: int) -> str:
    """The split to which a problem belongs for good; `numbers` sorted upwards."""
    key = f"countdown {target} {'.'.join(map(str, numbers))}"
    share = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % 100
    return "train" if share < _TRAIN_BELOW else "probe" if share < _PROBE_BELOW else "test"


def final_expression(response: str, extract: str = "answer") -> str:
    """The text of the one final answer; ExpressionError if there is none, or several: many guesses don't pay."""
    places = [match.end() for match in (_BOX if extract == "boxed" else _ANSWER_WORD).finditer(response)]
    if len(places) != 1:
        raise ExpressionError("no answer" if not places else f"{len(places)} answers instead of one")
    text = response[places[0] :]
    if extract == "boxed":
        text, closed, _ = text.partition("}")
        if not closed:
            raise ExpressionError("\\boxed{ is not closed")
    return text.strip().strip("$").strip()
