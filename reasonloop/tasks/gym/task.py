"""Problems that a generator of reasoning-gym makes, scored by the library in a sandbox."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

from pydantic import Field, model_validator

from reasonloop.config.section import Section, validated
from reasonloop.errors import InputError
from reasonloop.records import LONGEST_DEADLINE, Judgement, Problem, Verdict
from reasonloop.tasks.base import SPLITS
from reasonloop.tasks.gym.sound import Asked, fault_of
from reasonloop.verify.answer_end import answer_end, tag_end
from reasonloop.verify.answers import one_line
from reasonloop.verify.extract import ANSWER_TAG, extract_answer, spoken_from
from reasonloop.verify.gym import GymScorer
from reasonloop.verify.sandbox.limits import Limits

_NO_ANSWER = Judgement(Verdict.UNPARSEABLE, "no answer where `extract` looks for it")
_BLOCK = 4_000_000
"""Library seeds that belong to one split of one seed: the generators draw problem number i from seed + i."""
_SEEDS = 300
_CHUNK = 20
"""Problems asked for at once"""
_FRUITLESS = 200
"""Problems in a row that were there already, after which there are taken to be no others"""
_DEALT = ("test", "probe", "train")
"""Splits in the order in which they take their prompts: more training problems leave the others as they are"""


class Gym:
    """Problems of one reasoning-gym generator, without end: `dataset` names it. Needs the extra `gym`, and a sandbox.

    Right is what the library scores as exactly 1. A generator whose own answers score less, or that takes anything, is
    refused.
    """

    class Options(Section):
        dataset: str = ""
        """The generator's name in reasoning-gym: leg_counting, say. A wrong one is answered with those there are."""
        config: dict[str, Any] = Field(default={})
        """The generator's own options, as reasoning-gym names them ([task.config] in a recipe)."""
        train: int = Field(2000, ge=0, le=_BLOCK // 4)
        """Training problems."""
        probe: int = Field(64, ge=0, le=_BLOCK // 4)
        """Held-out problems that may steer a run."""
        test: int = Field(200, ge=0, le=_BLOCK // 4)
        """Held-out problems that are only reported on."""
        seed: int = Field(0, ge=0, lt=_SEEDS)
        """Which problems are drawn; no two splits of any two seeds draw from the same numbers."""
        extract: Literal["answer", "boxed", "all"] = "answer"
        """Where a response's answer is, of any number of lines: in the last <answer>...</answer>, in the last \\boxed{}, or
        all of it."""
        prompt_template: str = (
            "{prompt}\n\nWrite your final answer, and nothing else, between <answer> and </answer>.\n"
        )
        """Text around each question, which stands for {prompt}. Say here where the answer is to be written."""
        system: str = ""
        """System message for chat prompts."""
        format: Literal["plain", "chat"] = "plain"
        """Prompts: text to be continued, or a user message."""
        partial: bool = False
        """Whether the library's scores between 0 and 1 are partial credit. Many generators give some to any text that the
        right answer is a part of."""
        timeout: float = Field(4.0, ge=0.05, le=LONGEST_DEADLINE)
        """Seconds for the score of an answer; keep it below `task.verify_deadline`, which kills the sandbox too."""
        memory_mib: int = Field(1024, ge=512)
        """Address space in which an answer is scored, MiB; the library takes about 300."""

        @model_validator(mode="after")
        def _check(self) -> Gym.Options:
            if "{prompt}" not in self.prompt_template:
                raise ValueError(f"prompt_template = {self.prompt_template!r}: expected it to contain {{prompt}}")
            if self.system and self.format == "plain":
                raise ValueError('system: a message for chat prompts; expected format = "chat"')
            return self

    def __init__(self, **options: Any) -> None:
        self.options = validated(self.Options, options, "task gym")
        self._label = f"task gym: the generator {self.options.dataset!r}"
        sizes = {split: self._limit(getattr(self.options, split)) for split in SPLITS}
        seeds = [self.first_number(split) for split in SPLITS]
        limits = Limits(self.options.timeout, self.options.memory_mib)
        splits = list(zip(seeds, sizes.values(), strict=True))
        self._scorer = GymScorer(self.options.dataset, self.options.config, splits, limits)

    def first_number(self, split: str) -> int:
        """The library's seed for a split: its problem i is drawn from this number + i, and from nothing else."""
        return (self.options.seed * len(SPLITS) + SPLITS.index(split)) * _BLOCK

    @staticmethod
    def _limit(size: int) -> int:
        """Numbers that are tried for `size` problems, since some give the same prompt as others."""
        return 2 * size + 200 if size else 0

    def problems(self) -> Sequence[Problem]:
        """All problems, after a look at the generator.

        Raises InputError if it is not there, is refused, makes too few problems, or answers can't be scored safely here.
        """
        return self._problems

    @cached_property
    def _problems(self) -> tuple[Problem, ...]:
        dealt: dict[str, list[Problem]] = {}
        seen: set[str] = set()
        with self._scorer as scorer:
            scorer.start()
            for split in _DEALT:
                dealt[split] = self._draw(split, seen)
                # a look at the first ones there are, before any time goes into more
                if len(seen) == len(dealt[split]) and (fault := fault_of(scorer, map(_asked, dealt[split]))):
                    raise InputError(f"{self._label} is refused: {fault}")
        wanted = {split: getattr(self.options, split) for split in SPLITS}
        if len(seen) < sum(wanted.values()):
            counts = ", ".join(f"{len(dealt[split])} of {wanted[split]} {split}" for split in SPLITS)
            raise InputError(
                f"{self._label} has too few problems that differ: {len(seen)} were found where train + probe + test = "
                f"{sum(wanted.values())} ({counts}); ask for fewer, or widen its config"
            )
        return tuple(problem for split in SPLITS for problem in dealt[split])

    def _draw(self, split: str, seen: set[str]) -> list[Problem]:
        """The first problems of the split whose questions aren't in `seen`, to which they are added; maybe too few."""
        size, number = getattr(self.options, split), SPLITS.index(split)
        found: list[Problem] = []
        tried, fruitful, last = 0, 0, self._limit(size)
        while len(found) < size and tried < min(last, fruitful + _FRUITLESS):
            entries = self._scorer.entries(number, tried, min(tried + _CHUNK, last))
            for index, (question, answer) in enumerate(entries, start=tried):
                if question is not None and question not in seen and len(found) < size:
                    seen.add(question)
                    found.append(self._problem(split, index, question, answer))
                    fruitful = index
            tried += len(entries)
            if all(question is None for question, _ in entries):
                raise InputError(f"{self._label} failed to make problems: {entries[0][1]}")
        return found

    def _problem(self, split: str, index: int, question: str, answer: str | None) -> Problem:
        # not str.format: questions are full of braces
        asked = self.options.prompt_template.replace("{prompt}", question)
        chat = self.options.format == "chat"
        system = ({"role": "system", "content": self.options.system},) if self.options.system else ()
        return Problem(
            id=f"{self.options.dataset}-{self.options.seed}-{split}-{index}",
            prompt=None if chat else asked,
            messages=(*system, {"role": "user", "content": asked}) if chat else None,
            answer=answer or "",
            split=split,
            meta={"place": [SPLITS.index(split), index], "question": question},
        )

    def prepare(self) -> None:
        """Start the sandbox, so that no deadline has to wait for it. Raises InputError."""
        self._scorer.start()

    def quick(self, problem: Problem, response: str) -> Judgement | None:
        """UNPARSEABLE for a response without an answer; everything else needs the sandbox."""
        return _NO_ANSWER if self._answer(response) is None else None

    def verify(self, problem: Problem, response: str) -> Judgement:
        """RIGHT if the library scores the answer as 1."""
        answer = self._answer(response)
        if answer is None:
            return _NO_ANSWER
        place, question, _ = _asked(problem)
        score = self._scorer.score(place, question, answer)
        if isinstance(score, Judgement):
            return score
        if not 0.0 <= score <= 1.0:
            return Judgement(Verdict.CRASHED, f"the scorer gave {score}, expected a number from 0 to 1")
        verdict = Verdict.RIGHT if score == 1.0 else Verdict.WRONG
        return Judgement(verdict, one_line(answer, 200), score if self.options.partial else None)

    def gold_response(self, problem: Problem) -> str:
        """The library's own answer where this task's extraction finds it."""
        if self.options.extract == "answer":
            return f"<answer>\n{problem.answer}\n</answer>"
        return f"\\boxed{{{problem.answer}}}" if self.options.extract == "boxed" else problem.answer

    def answer(self, problem: Problem, response: str) -> str | None:
        return self._answer(response)

    def answer_end(self, problem: Problem, text: str) -> int | None:
        """Behind the first tag or box that is closed."""
        if self.options.extract == "all":
            return None
        if self.options.extract == "boxed":
            return answer_end(text, "boxed")
        return tag_end(text)

    def _answer(self, response: str) -> str | None:
        """The answer, stripped; None if there is none."""
        if self.options.extract == "answer":
            return tagged(response)
        return extract_answer(response, self.options.extract)


def _asked(problem: Problem) -> Asked:
    split, index = problem.meta["place"]
    return (split, index), problem.meta["question"], problem.answer


def tagged(response: str) -> str | None:
    """What the last closed <answer>...</answer> behind the thinking holds, stripped; None if that is nothing.

    A tag that is opened behind it and never closed, as in a response that was cut off, gives None, too.
    """
    start = spoken_from(response)
    if start is None:
        return None
    opened, found = None, None
    for tag in ANSWER_TAG.finditer(response, start):
        if not tag["closes"]:
            opened, found = tag.end(), None
        elif opened is not None:
            found, opened = response[opened : tag.start()].strip(), None
    return found or None
