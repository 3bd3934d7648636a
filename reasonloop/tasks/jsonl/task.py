"""Problems from JSONL files, and the GSM8K preset."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field, model_validator

from reasonloop.config.section import Section, validated
from reasonloop.errors import InputError
from reasonloop.records import Judgement, Problem, Verdict
from reasonloop.tasks.base import ALL_SPLITS, DEMONSTRATIONS
from reasonloop.tasks.jsonl.rows import Row, read_rows, refuse_overlap


class AnswerVerifier(Protocol):
    """What reasonloop.verify.verifiers offers."""

    def verify(self, problem: Problem, response: str) -> Verdict | Judgement: ...

    def quick(self, problem: Problem, response: str) -> Judgement | None: ...


class Jsonl:
    """The problems of JSONL files, compared with their gold answers. Paths are relative to the current directory."""

    label = "task jsonl"

    class Options(Section):
        train: str = ""
        """File of training problems."""
        probe: int | str = 0
        """How many training problems to hold out as the probe set (by a hash of their ids), or a file of its own."""
        test: str = ""
        """File of held-out problems that are only reported on."""
        verifier: Literal["math", "numeric", "exact"] = "math"
        """How answers are compared: as mathematics, as numbers, or as text."""
        extract: Literal["boxed", "hash", "last_number", "final", "bare", "all"] = "final"
        """Where a response's answer is: in \\boxed{}, after ####, its last number, the first of these that there is
        ("answer is" included), the box or else all of it, or all of it."""
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
                raise ValueError("neither 'train' nor 'test' is given; expected the path of a JSONL file")
            if "{prompt}" not in self.prompt_template:
                raise ValueError(f"prompt_template = {self.prompt_template!r}: expected it to contain {{prompt}}")
            if isinstance(self.probe, int) and self.probe < 0:
                raise ValueError(f"probe = {self.probe}: expected a number of problems or a path")
            if self.probe and not self.train:
                raise ValueError("'probe' without 'train'; expected the path of a JSONL file of training problems")
            return self

    def __init__(self, **options: Any) -> None:
        self.options = validated(self.Options, options, self.label)

    def files(self) -> dict[str, Path]:
        """The files by split."""
        named = {"train": self.options.train, "probe": self.options.probe, "test": self.options.test}
        return {split: Path(path).expanduser() for split, path in named.items() if path and isinstance(path, str)}

    def problems(self) -> Sequence[Problem]:
        return self._problems

    @cached_property
    def _problems(self) -> tuple[Problem, ...]:
        rows = {split: read_rows(path) for split, path in self.files().items()}
        _refuse_same_ids(rows)
        for split in ("probe", "test"):
            refuse_overlap(rows.get(split, []), rows.get("train", []))
        refuse_overlap(rows.get("test", []), rows.get("probe", []))
        if isinstance(self.options.probe, int) and self.options.probe:
            verifiable = [row for row in rows["train"] if row.answer]
            if self.options.probe >= len(verifiable):
                raise InputError(
                    f"{self.label}: probe = {self.options.probe}, but {self.files()['train']} has only "
                    f"{len(verifiable)} problems; expected fewer"
                )
            rows["probe"] = _sample(verifiable, self.options.probe, "probe")
            # a prompt may stand there more than once, with ids of its own or as a demonstration
            held_out = {row.prompt_key for row in rows["probe"]}
            rows["train"] = [row for row in rows["train"] if row.prompt_key not in held_out]
        _refuse_without_answer([*rows.get("probe", []), *rows.get("test", [])])
        rows[DEMONSTRATIONS] = [row for row in rows.get("train", []) if not row.answer]
        rows["train"] = [row for row in rows.get("train", []) if row.answer]
        for split, limit in (("train", self.options.limit_train), ("test", self.options.limit_test)):
            if limit and split in rows:
                rows[split] = _sample(rows[split], limit, "limit")
        return tuple(self._problem(row, split) for split in ALL_SPLITS for row in rows.get(split, []))

    def _problem(self, row: Row, split: str) -> Problem:
        messages, prompt = row.messages, None
        if row.prompt is not None:
            # not str.format: problems and templates are full of LaTeX braces
            prompt = self.options.prompt_template.replace("{prompt}", row.prompt)
            if self.options.format == "chat":
                messages, prompt = ({"role": "user", "content": prompt},), None
        if messages is not None and self.options.system and messages[0]["role"] != "system":
            messages = ({"role": "system", "content": self.options.system}, *messages)
        return Problem(
            id=row.id,
            prompt=prompt,
            messages=messages,
            answer=row.answer,
            response=row.response,
            split=split,
            meta={"file": str(row.path), "line": row.line},
        )

    @cached_property
    def _verifier(self) -> AnswerVerifier:
        from reasonloop.verify.verifiers import ExactVerifier, MathVerifier, NumericVerifier

        verifiers: dict[str, Any] = {"math": MathVerifier, "numeric": NumericVerifier, "exact": ExactVerifier}
        return verifiers[self.options.verifier](extract=self.options.extract)

    def prepare(self) -> None:
        """Slow imports, done by a worker before its first deadline starts."""
        prepare = getattr(self._verifier, "prepare", None)
        if prepare is not None:
            prepare()

    def verify(self, problem: Problem, response: str) -> Verdict | Judgement:
        if not problem.answer:
            return Judgement(Verdict.UNPARSEABLE, "the problem has no gold answer")
        return self._verifier.verify(problem, response)

    def quick(self, problem: Problem, response: str) -> Judgement | None:
        if not problem.answer:
            return Judgement(Verdict.UNPARSEABLE, "the problem has no gold answer")
        return self._verifier.quick(problem, response)

    def answer_end(self, problem: Problem, text: str) -> int | None:
        from reasonloop.verify.answer_end import answer_end

        return answer_end(text, self.options.extract)

    def gold_response(self, problem: Problem) -> str:
        """The gold answer where this task's extraction finds it."""
        from reasonloop.verify.extract import gold_response

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


def _sample(rows: list[Row], size: int, purpose: str) -> list[Row]:
    """A fixed sample in file order: rows that come or go elsewhere in the file don't change how a row ranks."""

    def rank(row: Row) -> bytes:
        return hashlib.sha256(f"{purpose} {row.id}".encode("utf-8", "surrogatepass")).digest()

    chosen = {row.id for row in sorted(rows, key=rank)[:size]}
    return [row for row in rows if row.id in chosen]


def _refuse_without_answer(held_out: list[Row]) -> None:
    for row in held_out:
        if not row.answer:
            raise InputError(
                f"{row.place}: no 'answer'; expected one in a held-out problem (only training can do without)"
            )


def _refuse_same_ids(rows: dict[str, list[Row]]) -> None:
    seen: dict[str, Row] = {}
    for row in (row for group in rows.values() for row in group):
        if row.id in seen:
            other = seen[row.id]
            raise InputError(
                f"{row.path} line {row.line} and {other.path} line {other.line} are both called {row.id!r}; "
                "expected different ids, or files of different names"
            )
        seen[row.id] = row
