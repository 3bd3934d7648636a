"""What a command of the user's own gets from a run, and what it hands back: problems, a policy's folder, a seed."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reasonloop.errors import InputError, RunError
from reasonloop.files import replace_folder, write_atomically
from reasonloop.policy.hub import hub_name
from reasonloop.policy.loading import bundled_names, hugging_face_folder, resolve
from reasonloop.records import Place, Problem

SEEDS = 2**31
"""Trainers take seeds below this"""
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_NUMBERS = re.compile(r"(\d+)")


def write_problems(path: Path, problems: Sequence[Problem], task: str) -> None:
    """The problems as Parquet, one a row, and as JSON Lines beside it: the columns that trainers look for.

    `prompt` is text, or messages where the task has those (verl, TRL, verifiers); `answer`; `id`; verl's `data_source`,
    `ability`, `reward_model` and `extra_info`; `meta`, the rest of what the task knows, as JSON. Raises InputError where some
    prompts are text and others messages: a column has one type.
    """
    plain = {problem.messages is None for problem in problems}
    if len(plain) > 1:
        raise InputError("explorer.command: some problems are text and others messages; expected a task with one kind")
    rows = [_row(problem, number, task) for number, problem in enumerate(problems)]
    schema = pa.schema(
        [
            *(("id", pa.string()), ("prompt", pa.string() if plain == {True} else _MESSAGES), ("answer", pa.string())),
            *(("data_source", pa.string()), ("ability", pa.string())),
            ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
            ("extra_info", pa.struct([("index", pa.int64()), ("id", pa.string()), ("split", pa.string())])),
            ("meta", pa.string()),
        ]
    )
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema), sink)
    write_atomically(path, memoryview(sink.getvalue()))
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomically(path.with_suffix(".jsonl"), lines)


def _row(problem: Problem, number: int, task: str) -> dict[str, Any]:
    source = problem.meta.get("data_source")
    return {
        "id": problem.id,
        "prompt": [dict(message) for message in problem.messages] if problem.messages is not None else problem.prompt,
        "answer": problem.answer,
        "data_source": source if isinstance(source, str) else task,
        "ability": "reasoning",
        "reward_model": {"style": "rule", "ground_truth": problem.answer},
        "extra_info": {"index": number, "id": problem.id, "split": problem.split},
        "meta": json.dumps(dict(problem.meta), ensure_ascii=False),
    }


def needs_writing(source: str) -> bool:
    """Whether a policy is no plain Hugging Face folder on this machine, or one that may go at any moment."""
    path = resolve(source)
    return source in bundled_names() or hub_name(source) is not None or not (path / "config.json").is_file()


def copy_policy(source: str, folder: Path) -> None:
    """The files of a bundled model, of one of the hub, or of a GGUF file, as a Hugging Face folder of its own."""
    if (folder / "config.json").is_file():
        return
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(hugging_face_folder(source), partial, ignore=lambda _, names: [n for n in names if n == "recipe.toml"])
    replace_folder(partial, folder)


def seed_of(seed: int, place: Place) -> int:
    """A seed for a stage's command: another one for each stage and iteration of each run."""
    return place.draw(seed, "command", 0) % SEEDS


def handed_back(out: Path, pattern: str, what: str) -> Path:
    """The folder below `out` that a pattern names; of several the one with the highest numbers in its name. Raises RunError
    where there is none with a config.json."""
    found = [path for path in (out.glob(pattern) if pattern else [out]) if (path / "config.json").is_file()]
    if not found:
        expected = f"{out}/{pattern}" if pattern else str(out)
        raise RunError(
            f"{what}: the command has left no Hugging Face folder at {expected}; expected one with a config.json, or "
            f"{what.partition('.')[0]}.model to say where it is"
        )
    return max(found, key=lambda path: [int(part) if part.isdigit() else part for part in _NUMBERS.split(str(path))])
