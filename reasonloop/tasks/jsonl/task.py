"""Problems from files, and the GSM8K preset."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from reasonloop.config.section import Section, validated
from reasonloop.errors import InputError
from reasonloop.records import Judgement, Problem, Verdict
from reasonloop.tasks.base import DEMONSTRATIONS, SPLITS
from reasonloop.tasks.files import Source, locate
from reasonloop.tasks.jsonl.golds import read_golds
from reasonloop.tasks.jsonl.layouts import ID, KeyOptions
from reasonloop.tasks.jsonl.rows import prompt_key
from reasonloop.tasks.jsonl.sift import Sifted, overlap, refuse_bad, refuse_empty, refuse_overlap, sift
from reasonloop.tasks.report import FileReport
from reasonloop.verify.answer_end import answer_end
from reasonloop.verify.extract import extract_answer, gold_response
from reasonloop.verify.verifiers import ExactVerifier, MathVerifier, NumericVerifier

_VERIFIERS: dict[str, Any] = {"math": MathVerifier, "numeric": NumericVerifier, "exact": ExactVerifier}
_USUAL_SPLIT = {"probe": "validation"}
"""What a data set calls the split, where it isn't the option's own name"""
_NO_ANSWER = Judgement(Verdict.UNPARSEABLE, "the problem has no gold answer")


class Jsonl:
    """The problems of files, folders and Hugging Face data sets, compared with their gold answers.

    Paths are relative to the current directory.
    """

    label = "task jsonl"

    class Options(Section):
        train: str = ""
        """Training problems: a file (JSON Lines, JSON, CSV, Parquet, Arrow), a folder of such or of `datasets`, each with
        `@split` behind it if it has several, or a Hugging Face data set (hf:owner/name:config@split)."""
        probe: int | str = 0
        """How many training problems to hold out as the probe set (by a hash of their ids), or a file of its own."""
        test: str = ""
        """Held-out problems that are only reported on: named as `train` is."""
        prompt_key: str = ""
        """Where a row's prompt or messages are: a key, or keys with dots between them. Empty: where the usual layouts have
        them; so with the next two."""
        answer_key: str = ""
        """Where its gold answer is, as reward_model.ground_truth."""
        response_key: str = ""
        """Where its worked solution is."""
        id_key: str = ID
        """Where its own id is, if it has one. Empty: ids are hashes of the prompts."""
        on_bad: Literal["refuse", "skip"] = "refuse"
        """What to do with rows that are no problem, or contradict others: name them all and stop, or leave them out and
        count them; those with a suspicious gold answer ("proof", a whole solution), too."""
        verifier: Literal["math", "numeric", "exact"] = "math"
        """How answers are compared: as mathematics, as numbers, or as text."""
        percent: Literal["lenient", "strict"] = "lenient"
        """Whether 10 is right for the gold answer 10 %, and 10 % for 10 where the problem asks for a percentage."""
        extract: Literal["boxed", "hash", "last_number", "final", "bare", "all"] = "final"
        """Where a response's answer is. boxed: in \\boxed{}. hash: after ####. last_number: its last number. final: the
        first that there is of <answer>, these, "answer is" and the last formula. bare: the box, or else all of it. all: all
        of it."""
        prompt_template: str = "{prompt}"
        """Text around each prompt, which stands for {prompt}; rows with messages are left as they are."""
        system: str = ""
        """System message for chat prompts that have none."""
        format: Literal["plain", "chat"] = "plain"
        """Prompts of rows without messages: text to be continued, or a user message."""
        limit_train: int = Field(0, ge=0)
        """Use only this many training problems (a fixed sample, taken after the probe set); 0 for all."""
        limit_test: int = Field(0, ge=0)
        """Use only this many test problems (a fixed sample); 0 for all."""

        @model_validator(mode="after")
        def _check(self) -> Jsonl.Options:
            if not (self.train or self.test):
                raise ValueError("neither 'train' nor 'test' is given; expected a file of problems")
            if "{prompt}" not in self.prompt_template:
                raise ValueError(f"prompt_template = {self.prompt_template!r}: expected it to contain {{prompt}}")
            if isinstance(self.probe, int) and self.probe < 0:
                raise ValueError(f"probe = {self.probe}: expected a number of problems or a path")
            if self.probe and not self.train:
                raise ValueError("'probe' without 'train'; expected a file of training problems")
            return self

    def __init__(self, **options: Any) -> None:
        self.options = validated(self.Options, options, self.label)

    def files(self) -> dict[str, str]:
        """The files, folders or data sets by split."""
        named = {"train": self.options.train, "probe": self.options.probe, "test": self.options.test}
        return {split: name for split, name in named.items() if name and isinstance(name, str)}

    def reports(self) -> tuple[FileReport, ...]:
        """What came of the rows of each file."""
        return tuple(sifted.report for sifted in self._sifted.values())

    def problems(self) -> Sequence[Problem]:
        return self._problems

    @cached_property
    def _sifted(self) -> dict[str, Sifted]:
        """What was read, by split, each file once: no bad rows, and no prompt in two splits."""
        options = self.options
        keys = KeyOptions(options.prompt_key, options.answer_key, options.response_key, options.id_key)
        found = {split: sift(self._source(name, split), split, keys) for split, name in self.files().items()}
        for sifted in found.values():
            read_golds(sifted, self._verifier, skip=options.on_bad == "skip")
        if options.on_bad == "refuse":
            refuse_bad(found.values())
        held_out: list[Problem] = []
        for split in ("test", "probe", "train"):
            if split not in found:
                continue
            if options.on_bad == "skip":
                found[split].drop(overlap(held_out, found[split]))
            else:
                refuse_overlap(held_out, found[split].problems)
            held_out = [*held_out, *found[split].problems]
        for sifted in found.values():
            refuse_empty(sifted)
        return found

    def _source(self, name: str, split: str) -> Source:
        return locate(name, _USUAL_SPLIT.get(split, split))

    @cached_property
    def _problems(self) -> tuple[Problem, ...]:
        train, probe, test = (self._sifted[split].problems if split in self._sifted else [] for split in SPLITS)
        if isinstance(self.options.probe, int) and self.options.probe:
            verifiable = [problem for problem in train if problem.answer]
            if self.options.probe >= len(verifiable):
                raise InputError(
                    f"{self.label}: probe = {self.options.probe}, but {self.files()['train']} has only "
                    f"{len(verifiable)} problems; expected fewer"
                )
            probe = _sample(verifiable, self.options.probe, "probe")
            # a prompt may stand there more than once, as a demonstration
            held_out = {prompt_key(problem) for problem in probe}
            train = [problem for problem in train if prompt_key(problem) not in held_out]
        dealt = {
            "train": _sample([problem for problem in train if problem.answer], self.options.limit_train, "limit"),
            "probe": probe,
            "test": _sample(test, self.options.limit_test, "limit"),
            DEMONSTRATIONS: [problem for problem in train if not problem.answer],
        }
        return tuple(self._asked(problem, split) for split, problems in dealt.items() for problem in problems)

    def _asked(self, problem: Problem, split: str) -> Problem:
        """With its prompt as the options want it."""
        messages, prompt = problem.messages, None
        if problem.prompt is not None:
            # not str.format: problems and templates are full of LaTeX braces
            prompt = self.options.prompt_template.replace("{prompt}", problem.prompt)
            if self.options.format == "chat":
                messages, prompt = ({"role": "user", "content": prompt},), None
        if messages is not None and self.options.system and messages[0]["role"] != "system":
            messages = ({"role": "system", "content": self.options.system}, *messages)
        return replace(problem, prompt=prompt, messages=messages, split=split)

    @cached_property
    def _verifier(self) -> MathVerifier | NumericVerifier | ExactVerifier:
        if self.options.verifier == "exact":
            return ExactVerifier(self.options.extract)
        return _VERIFIERS[self.options.verifier](self.options.extract, self.options.percent)

    def prepare(self) -> None:
        """Slow imports, done by a worker before its first deadline starts."""
        if isinstance(self._verifier, MathVerifier):
            self._verifier.prepare()

    def verify(self, problem: Problem, response: str) -> Judgement:
        return self._verifier.verify(problem, response) if problem.answer else _NO_ANSWER

    def quick(self, problem: Problem, response: str) -> Judgement | None:
        return self._verifier.quick(problem, response) if problem.answer else _NO_ANSWER

    def answer(self, problem: Problem, response: str) -> str | None:
        return extract_answer(response, self.options.extract)

    def answer_end(self, problem: Problem, text: str) -> int | None:
        return answer_end(text, self.options.extract)

    def gold_response(self, problem: Problem) -> str:
        """The gold answer where this task's extraction finds it."""
        return gold_response(problem.answer, self.options.extract)


class Gsm8k(Jsonl):
    """GSM8K's files with prompts and comparison that suit them."""

    label = "task gsm8k"

    class Options(Jsonl.Options):
        folder: str = ""
        """Folder with train.jsonl and test.jsonl, instead of naming the files."""
        verifier: Literal["math", "numeric", "exact"] = "numeric"
        """How answers are compared; every gold answer is an integer."""
        format: Literal["plain", "chat"] = "chat"
        """Prompts: text to be continued, or a user message."""
        prompt_template: str = (
            "{prompt}\n\nWork it out step by step in short sentences. "
            "Then write the final number on a last line of its own after ####, as in '#### 42'."
        )
        """Text around each question, which stands for {prompt}."""

        @model_validator(mode="before")
        @classmethod
        def _files_of_folder(cls, data: Any) -> Any:
            if isinstance(data, dict) and isinstance(data.get("folder"), str) and data["folder"]:
                return {split: str(Path(data["folder"]) / f"{split}.jsonl") for split in ("train", "test")} | data
            return data

    def _source(self, name: str, split: str) -> Source:
        if name.endswith(".jsonl") and not Path(name).expanduser().exists():
            raise InputError(
                f"{name}: there is no such file; expected GSM8K's, from github.com/openai/grade-school-math (its folder "
                "grade_school_math/data), in that place, or their folder's name in task.folder"
            )
        return super()._source(name, split)


def _sample(problems: list[Problem], size: int, purpose: str) -> list[Problem]:
    """A fixed sample in file order (0: all): rows that come or go elsewhere in the file don't change how a row ranks."""

    def rank(problem: Problem) -> bytes:
        return hashlib.sha256(f"{purpose} {problem.id}".encode()).digest()

    chosen = {problem.id for problem in sorted(problems, key=rank)[: size or None]}
    return [problem for problem in problems if problem.id in chosen]
