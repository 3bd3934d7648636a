"""HumanEval(+) and MBPP(+), read from files that the user has."""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, model_validator

from reasonloop.errors import InputError
from reasonloop.records import Problem
from reasonloop.tasks.base import SPLITS
from reasonloop.tasks.code.plus import plus_tests
from reasonloop.tasks.code.task import CodeOptions, CodeTask, deal
from reasonloop.tasks.files import RawRow, Row, read_rows
from reasonloop.verify.sandbox.guest import free_names


class FileOptions(CodeOptions):
    """Options of the tasks that read files."""

    path: str = ""
    """One file that is dealt into training, probe and test problems by a hash of their ids."""
    train: str = ""
    """File of training problems."""
    probe: int | str = 0
    """How many problems of `path` or `train` to hold out as the probe set, or a file of its own."""
    test: int | str = 0
    """How many problems of `path` to hold out for the test, or a file of its own."""
    limit: int = Field(0, ge=0)
    """Use only the first so many problems of each file. 0: all."""

    @model_validator(mode="after")
    def _check(self) -> FileOptions:
        if not (self.path or self.train or isinstance(self.test, str)):
            raise ValueError("none of 'path', 'train' and 'test' is given; expected the path of a file")
        if self.path and (self.train or isinstance(self.probe, str) or isinstance(self.test, str)):
            raise ValueError("'path' is one file for all splits; expected no other file beside it")
        if not self.path and isinstance(self.test, int) and self.test:
            raise ValueError(f"test = {self.test}: a number of problems needs 'path'; expected a file")
        if isinstance(self.probe, int) and self.probe and not (self.path or self.train):
            raise ValueError(f"probe = {self.probe}: a number of problems needs 'path' or 'train'")
        if min((n for n in (self.probe, self.test) if isinstance(n, int)), default=0) < 0:
            raise ValueError("'probe' and 'test' are numbers of problems or paths; expected no negative number")
        return self


class _FileTask(CodeTask):
    Options = FileOptions
    layout = ""
    """What a row of the file must have"""

    def read(self) -> Sequence[Problem]:
        options = self.options
        named = {"train": options.path or options.train, "probe": options.probe, "test": options.test}
        found: list[Problem] = []
        for split in SPLITS:
            if not named[split] or isinstance(named[split], int):
                continue
            path = Path(named[split]).expanduser()
            rows = read_rows(path, self.layout)[: options.limit or None]
            for raw, row in rows:
                if not isinstance(row.get("task_id"), str | int):
                    raise InputError(f"{raw.place}: no 'task_id' (a text or a number); expected {self.layout}")
            names = [f"{row['task_id']}" for _, row in rows]
            splits = dict.fromkeys(names, split)
            if split == "train":
                numbers = [n if isinstance(n, int) else 0 for n in (options.probe, options.test)]
                if sum(numbers) > len(rows):
                    raise InputError(
                        f"{self.label}: probe + test = {sum(numbers)}, but {path} has {len(rows)} problems"
                    )
                splits = deal(names, *numbers)
            found += [self._problem(*row, splits[name]) for row, name in zip(rows, names, strict=True)]
        return found

    def _problem(self, raw: RawRow, row: Row, split: str) -> Problem:
        try:
            return self.row(row, split, {**raw.meta, "file": Path(raw.file).name})
        except KeyError as error:
            lack = f"no {error} (keys: {', '.join(map(str, row))})"
        except (SyntaxError, ValueError, TypeError, AttributeError) as error:
            lack = str(error)
        raise InputError(f"{raw.place}: {lack}; expected {self.layout}")

    def row(self, row: Row, split: str, meta: Row) -> Problem:
        raise NotImplementedError


class HumanEval(_FileTask):
    """HumanEval or HumanEval+ from your own file: complete a function from its header and docstring."""

    label = "task humaneval"
    layout = "{task_id, prompt, entry_point, canonical_solution, test}, and base_input, plus_input, atol (HumanEval+)"

    def row(self, row: Row, split: str, meta: Row) -> Problem:
        prompt, entry, solution = _texts(row, "prompt", "entry_point", "canonical_solution")
        tests = f"{_texts(row, 'test')[0]}\n\ncheck({entry})\n"
        if "plus_input" in row:
            tests += plus_tests(entry, prompt + solution, row, f"{entry}()")
        # helpers in the prompt are the tests' own: a program that redefines one must not change what is tested
        return self.problem(str(row["task_id"]), split, prompt, solution, tests, [entry], support=prompt, **meta)


class Mbpp(_FileTask):
    """MBPP (sanitized or full) or MBPP+ from your own file: write a function from a sentence and a test."""

    label = "task mbpp"
    layout = (
        "{task_id, prompt | text, code, test_list, test_imports?}, or {task_id, prompt, entry_point, canonical_solution, "
        "assertion, base_input, plus_input, atol} (MBPP+)"
    )

    def row(self, row: Row, split: str, meta: Row) -> Problem:
        id = f"Mbpp/{row['task_id']}" if isinstance(row["task_id"], int) else str(row["task_id"])
        if "plus_input" in row:
            prompt, entry, code, assertion = _texts(row, "prompt", "entry_point", "canonical_solution", "assertion")
            tests = _imports(assertion, [entry]) + assertion + plus_tests(entry, code, row, assertion)
            return self.problem(id, split, prompt, code, tests, [entry], **meta)
        text = _texts(row, "prompt" if "prompt" in row else "text")[0]
        (code,) = _texts(row, "code")
        imports = row.get("test_imports") or [row.get("test_setup_code") or ""]
        tests = "\n".join([*imports, *row["test_list"]]) + "\n"
        prompt = f'"""\n{text.strip()}\n{row["test_list"][0].strip()}\n"""\n'
        names = _defined(code, tests)
        return self.problem(id, split, prompt, code, _imports(tests, names) + tests, names, **meta)


def _texts(row: Row, *keys: str) -> list[str]:
    for key in keys:
        if not isinstance(row[key], str):
            raise TypeError(f"{key!r} is a {type(row[key]).__name__}")
    return [row[key] for key in keys]


def _imports(tests: str, names: list[str]) -> str:
    """Imports of the modules that the tests use and the file forgets."""
    missing = sorted(set(free_names(tests)) & sys.stdlib_module_names - set(names))
    return "".join(f"import {name}\n" for name in missing)


def _defined(code: str, tests: str) -> list[str]:
    """Functions and classes of the solution that the tests use: also where one is called like a builtin."""
    defined = {n.name for n in ast.parse(code).body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    return sorted(defined & {node.id for node in ast.walk(ast.parse(tests)) if isinstance(node, ast.Name)})
