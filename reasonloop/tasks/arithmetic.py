"""Products and sums in plain language: few-shot problems that a small pretrained model solves now and then."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from functools import cached_property
from itertools import islice
from random import Random
from typing import Any, Literal

from pydantic import Field, model_validator

from reasonloop.config.section import Section, validated
from reasonloop.errors import InputError
from reasonloop.records import Judgement, Problem, Verdict

_WORDS = {"products": ("product", "times", "x"), "sums": ("sum", "plus", "+")}
_MAX_LINE = 500
_NUMERAL_LIKE = re.compile(r"(?:(?<![0-9)])-)?\.?[0-9][0-9.,]*")  # a hyphen after a number or bracket is no sign
_NUMERAL = re.compile(r"(-?)([0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.([0-9]+))?")


def _lies_in(pair: Set[int], ranges: Sequence[range]) -> bool:
    """Whether the two numbers (one, if they are equal), in either order, are of the two ranges."""
    a, b = min(pair), max(pair)
    return (a in ranges[0] and b in ranges[1]) or (b in ranges[0] and a in ranges[1])


class Arithmetic:
    """All pairs of numbers of the given lengths, dealt into disjoint shots, test, probe and training problems."""

    class Options(Section):
        operation: Literal["products", "sums"] = "products"
        """What to do with the two numbers."""
        digits: tuple[int, int] = (2, 1)
        """How many digits the two numbers have (1 to 4)."""
        least: int = Field(2, ge=0)
        """Smallest number: 2 leaves out the factors 0 and 1, which need no multiplying."""
        train: int = Field(400, ge=0)
        """Training problems (there are 720 products of 2 and 1 digits, 810 with the factor 1)."""
        probe: int = Field(60, ge=0)
        """Held-out problems that may steer a run."""
        test: int = Field(200, ge=0)
        """Held-out problems that are only reported on."""
        practice: tuple[tuple[int, int, int], ...] = ()
        """Further training problems of other lengths, each entry [digits, digits, how many]: easier, harder or turned-round
        ones that train the same skill. None is a held-out problem, in either order of its numbers."""
        shots: int = Field(4, ge=0, le=32)
        """Solved examples in front of every problem: always the same ones, and in no split."""
        format: Literal["plain", "chat"] = "plain"
        """`Question: ...` / `Answer:` text that the model continues, or chat messages."""
        seed: int = 0
        """How the pairs are dealt."""

        @model_validator(mode="after")
        def _check(self) -> Arithmetic.Options:
            for name, lengths in (("digits", self.digits), *(("practice", entry[:2]) for entry in self.practice)):
                if not all(1 <= count <= 4 for count in lengths):
                    raise ValueError(f"{name} = {list(lengths)}: expected two lengths between 1 and 4")
                if self.least >= 10 ** min(lengths):
                    raise ValueError(f"least = {self.least}: no number of {min(lengths)} digits is as large")
            for entry in self.practice:
                if entry[:2] == self.digits or entry[2] < 1:
                    raise ValueError(
                        f"practice = {list(entry)}: expected other lengths than digits, and at least 1 problem"
                    )
            if len({entry[:2] for entry in self.practice}) < len(self.practice):
                raise ValueError("practice: the same lengths twice; expected one entry for each")
            return self

    def __init__(self, **options: Any) -> None:
        self.options = validated(self.Options, options, "task arithmetic")
        self._noun, self._verb, self._sign = _WORDS[self.options.operation]

    def problems(self) -> Sequence[Problem]:
        return self._problems

    @cached_property
    def _problems(self) -> tuple[Problem, ...]:
        # dealt in this order, so that more training problems leave the shots and both held-out sets as they are
        sizes = (self.options.shots, self.options.test, self.options.probe, self.options.train)
        pairs = iter(self._pairs(self.options.digits, sum(sizes)))
        shots, test, probe, train = (list(islice(pairs, size)) for size in sizes)
        kept_back = {frozenset(pair) for pair in shots + test + probe}
        for entry in self.options.practice:
            train += self._pairs(entry[:2], entry[2], kept_back)
        dealt = {"train": train, "probe": probe, "test": test}
        return tuple(self._problem(a, b, split, shots) for split, numbers in dealt.items() for a, b in numbers)

    def _pairs(
        self, lengths: tuple[int, int], wanted: int, kept_back: Set[frozenset[int]] = frozenset()
    ) -> list[tuple[int, int]]:
        """The first `wanted` of a fixed random order of the pairs with numbers of these lengths, without those in
        `kept_back`; two numbers of one length come larger first."""
        # a number of one digit begins at 0 where `least` allows it
        firsts = [10 ** (digits - 1) if digits > 1 else 0 for digits in lengths]
        ranges = [
            range(max(self.options.least, first), 10**digits) for first, digits in zip(firsts, lengths, strict=True)
        ]
        same = ranges[0] == ranges[1]
        total = len(ranges[0]) * (len(ranges[0]) + 1) // 2 if same else len(ranges[0]) * len(ranges[1])
        total -= sum(_lies_in(pair, ranges) for pair in kept_back)
        if wanted > total:
            asked = "shots + train + probe + test" if lengths == self.options.digits else "practice"
            raise InputError(
                f"task arithmetic: {asked} = {wanted}, but there are only {total} {self.options.operation} of "
                f"digits = {list(lengths)}; ask for fewer"
            )
        rng = Random(f"arithmetic {self.options.operation} {lengths} {self.options.seed}")
        found: dict[tuple[int, int], None] = {}
        while len(found) < wanted:
            a, b = rng.choice(ranges[0]), rng.choice(ranges[1])
            if frozenset((a, b)) not in kept_back:
                found[(max(a, b), min(a, b)) if same else (a, b)] = None
        return list(found)

    def _result(self, a: int, b: int) -> int:
        return a * b if self.options.operation == "products" else a + b

    def _problem(self, a: int, b: int, split: str, shots: Sequence[tuple[int, int]]) -> Problem:
        question = f"What is {{}} {self._verb} {{}}?"
        prompt, messages = None, None
        if self.options.format == "plain":
            solved = [f"Question: {question.format(*s)}\nAnswer: {self._result(*s)}\n\n" for s in shots]
            prompt = "".join(solved) + f"Question: {question.format(a, b)}\nAnswer:"
        else:
            asked = question + " Answer with the number only."
            turns = [
                turn
                for s in shots
                for turn in (
                    {"role": "user", "content": asked.format(*s)},
                    {"role": "assistant", "content": str(self._result(*s))},
                )
            ]
            messages = (*turns, {"role": "user", "content": asked.format(a, b)})
        answer = str(self._result(a, b))
        return Problem(
            id=f"{self._noun}-{a}{self._sign}{b}",
            prompt=prompt,
            messages=messages,
            answer=answer,
            response=f" {answer}\n" if messages is None else answer,
            split=split,
            meta={"numbers": [a, b]},
        )

    def verify(self, problem: Problem, response: str) -> Judgement:
        """Judges the first line that isn't blank.

        It must hold one number, or three of which the first two are the problem's own (`27 x 6 = 162`) and the last
        is the answer. Anything else is unparseable, so that listing guesses doesn't pay.
        """
        line = response.lstrip()[: _MAX_LINE + 1].partition("\n")[0]
        if len(line) > _MAX_LINE:
            return Judgement(Verdict.UNPARSEABLE, f"first line is longer than {_MAX_LINE} characters")
        found = [numeral.rstrip(".,") for numeral in _NUMERAL_LIKE.findall(line)]
        restated = len(found) == 3 and sorted(found[:2]) == sorted(map(str, problem.meta["numbers"]))
        if len(found) != 1 and not restated:
            return Judgement(Verdict.UNPARSEABLE, f"{len(found)} numbers in the first line" if found else "no number")
        numeral = _NUMERAL.fullmatch(found[-1])
        if numeral is None:
            return Judgement(Verdict.UNPARSEABLE, f"{found[-1]} is no number")
        sign, whole, fraction = numeral.groups("")
        value = sign + (whole.replace(",", "").lstrip("0") or "0")  # a line is long enough for int() to refuse it
        right = value == problem.answer and not fraction.strip("0")
        return Judgement(Verdict.RIGHT if right else Verdict.WRONG, found[-1])

    def quick(self, problem: Problem, response: str) -> Judgement:
        return self.verify(problem, response)

    def answer(self, problem: Problem, response: str) -> str | None:
        judged = self.verify(problem, response)
        return judged.detail if judged.verdict in (Verdict.RIGHT, Verdict.WRONG) else None
