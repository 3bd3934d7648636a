"""A task's problems, and a run's experts, in files for other trainers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reasonloop.errors import InputError
from reasonloop.files import write_atomically
from reasonloop.records import Problem, Rollout
from reasonloop.tasks import row_name

_MESSAGES = pa.list_(pa.field("element", pa.struct([("role", pa.string()), ("content", pa.string())])))


def write_problems(path: Path, problems: Sequence[Problem], task: str) -> None:
    """The problems as Parquet, one a row, and as JSON Lines beside it: the columns that trainers look for.

    `prompt` is text, or messages where the task has those (verl, TRL, verifiers); `answer`; `id`; verl's `data_source`,
    `ability`, `reward_model` and `extra_info`; `meta`, the rest of what the task knows, as JSON. Raises InputError as
    `text_alone` does.
    """
    plain = text_alone(problems)
    rows = [_row(problem, number, task) for number, problem in enumerate(problems)]
    columns = pa.schema(
        [
            *(("id", pa.string()), ("prompt", pa.string() if plain else _MESSAGES), ("answer", pa.string())),
            *(("data_source", pa.string()), ("ability", pa.string())),
            ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
            ("extra_info", pa.struct([("index", pa.int64()), ("id", pa.string()), ("split", pa.string())])),
            ("meta", pa.string()),
        ]
    )
    write_table(path, rows, columns)
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


COLUMNS = {
    "messages": pa.schema([("messages", _MESSAGES)]),
    "prompt": pa.schema([("prompt", pa.string()), ("completion", pa.string())]),
}
"""Of experts, by layout"""


def expert_row(layout: str, problem: Problem, text: str) -> dict[str, Any]:
    """A response and what it answers. "messages": chat messages, the last of them the response; a prompt that is text is a
    user message. "prompt": `prompt` and `completion`. Raises InputError where a prompt can't be laid out so."""
    if layout == "messages":
        turns = problem.messages or ({"role": "user", "content": problem.prompt or ""},)
        asked = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
        return {"messages": [*asked, {"role": "assistant", "content": text}]}
    if problem.prompt is None:
        raise InputError(f"--layout {layout}: {row_name(problem)} is chat messages; expected --layout messages")
    return {"prompt": problem.prompt, "completion": text}


def write_experts(path: Path, problems: Sequence[Problem], experts: Sequence[Rollout]) -> None:
    """Experts as Parquet, one a row: `messages`, or where the prompts are text `prompt` and `completion`. The response is
    its text, without special tokens: who trains on it closes it. The folder is to hold nothing else, so that `datasets`
    reads it."""
    by_id = {problem.id: problem for problem in problems}
    pairs = [(by_id[rollout.problem_id], rollout.text) for rollout in experts]
    layout = "prompt" if text_alone([problem for problem, _ in pairs]) else "messages"
    write_table(path, [expert_row(layout, *pair) for pair in pairs], COLUMNS[layout])


def write_table(path: Path, rows: list[dict[str, Any]], columns: pa.Schema) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, columns), sink)
    write_atomically(path, memoryview(sink.getvalue()))


def text_alone(problems: Iterable[Problem]) -> bool:
    """Whether all prompts are text; False: all are messages. Raises InputError for some of each: a column has one type."""
    kinds = {problem.messages is None for problem in problems}
    if len(kinds) > 1:
        raise InputError("the command's problems: some are text and others messages; expected a task with one kind")
    return False not in kinds
