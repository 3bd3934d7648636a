"""`reasonloop experts`: a run's expert set as files that other trainers' supervised fine-tuning reads."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reasonloop import config
from reasonloop.config import Recipe, stored_recipe
from reasonloop.errors import InputError
from reasonloop.files import clear_partial, partial_folder, replace_folder
from reasonloop.records import Problem, Rollout
from reasonloop.store.experts import chosen_experts, distinct, solved_experts
from reasonloop.store.segments import list_segments
from reasonloop.store.sources import SOURCES, list_sources
from reasonloop.tasks import load_task, row_name, task_problems

LAYOUTS = ("messages", "prompt", "alpaca")
CARD = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: {data}
---
# Experts of {run}

{count:,} right responses to {problems:,} hard problems, chosen by ReasonLoop. `provenance.jsonl` says of each row, in the
same order, which rollout it was.
"""
"""By the first lines `datasets` reads the data alone, and not the provenance beside it"""
_SPECIAL = re.compile(
    r"<\|[A-Za-z_0-9]+\|>|<\uff5c[^<>]{1,40}\uff5c>|</?s>|<(?:bos|eos|pad|unk|start_of_turn|end_of_turn)>"
)
"""What a trainer's tokenizer could take for a special token"""


@dataclass
class Expert:
    """A rollout that was chosen, and the problem that it solves."""

    rollout: Rollout
    problem: Problem
    rate: float
    """Share of the problem's rollouts that were right, in its iteration"""


@dataclass
class Chosen:
    """The experts of all iterations of a run, and what was left at each stage of the choice."""

    experts: list[Expert] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def line(self) -> str:
        c = self.counts
        special = f"; {c['special']:,} with special tokens in their text left out" if c["special"] else ""
        return (
            f"experts: {c['seen']:,} rollouts, {c['right']:,} right; {c['hard_problems']:,} of {c['problems']:,} problems "
            f"hard; {c['deduplicated']:,} distinct successes on them, {c['selected']:,} after the cap; "
            f"{len(self.experts):,} texts{special}"
        )


def write_experts(run: Path, out: Path, layout: str | None = None, overrides: Sequence[str] = ()) -> list[Path]:
    """The verb: chooses, writes the files of a layout into the folder `out`, whole or not at all, and prints what they are.

    `layout`: None is "messages" where the problems are chat messages, and "prompt" where they are text. `overrides` are laid
    over the run's recipe: rloop.cap=4, say. Raises InputError where there is no expert, a layout can't hold the prompts, or
    `out` isn't new.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out}: {'not empty' if out.is_dir() else 'a file'}; expected a new folder")
    recipe = _recipe(run, list(overrides))
    found = choose(recipe, run)
    if not found.experts:
        raise InputError(f"{run}: no {found.line()}; expected right responses to problems that are hard: a larger "
                         "rloop.hard_threshold lets more problems through (1: all)")  # fmt: skip
    chosen = layout or _layout(found.experts)
    rows = [_row(chosen, expert) for expert in found.experts]
    clear_partial(out)
    partial = partial_folder(out)
    try:
        partial.mkdir(parents=True)
        names = _WRITERS[chosen](partial, rows)
        _write_lines(partial / "provenance.jsonl", _provenance(run, found.experts))
        problems = len({expert.problem.id for expert in found.experts})
        card = CARD.format(data=names[-1], run=run.name, count=len(rows), problems=problems)
        (partial / "README.md").write_text(card, encoding="utf-8")
        replace_folder(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(found.line())
    for name in (*names, "provenance.jsonl"):
        print(out / name)
    return [out / name for name in names]


def _recipe(run: Path, overrides: list[str]) -> Recipe:
    stored = run / "config.toml"
    if not stored.is_file():
        raise InputError(f"{run}: no run folder (no config.toml in it)")
    try:
        data = stored_recipe(tomllib.loads(stored.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise InputError(f"{stored}: cannot be read: {error}") from None
    return config.parse(data, overrides, str(stored))


def choose(recipe: Recipe, run: Path) -> Chosen:
    """The experts of all iterations, each chosen as RLoop does; equal texts of one problem once, the earliest."""
    problems = {
        problem.id: problem
        for problem in task_problems(load_task(recipe.task.name, recipe.task.options), recipe.task.name)
    }
    found, texts, iteration = Chosen(), set(), 0
    while list_segments(run / "trajectories", "main", iteration):
        chosen = chosen_experts(recipe, run, iteration)
        rates = {rate.problem_id: rate.rate for rate in chosen.rates}
        for name in ("seen", "right", "problems", "hard_problems", "deduplicated", "selected"):
            found.counts[name] += getattr(chosen, name)
        for rollout in distinct([*chosen.rollouts, *solved_experts(recipe, run, iteration)]):
            problem = problems.get(rollout.problem_id)
            if problem is None:
                raise InputError(
                    f"{run}: its problem {rollout.problem_id} is none of task {recipe.task.name!r} as it is here; expected "
                    "the task that it was made with (task.test=FILE, say, where the file has moved)"
                )
            if (problem.id, rollout.text) in texts:
                continue
            texts.add((problem.id, rollout.text))
            if _SPECIAL.search(rollout.text):
                found.counts["special"] += 1
            else:
                found.experts.append(Expert(rollout, problem, rates.get(problem.id, 1.0)))
        iteration += 1
    if not iteration:
        raise InputError(f"{run}: has no rollouts of a training; expected a run with explorations, or an imported one")
    return found


def _layout(experts: Sequence[Expert]) -> str:
    chats = sum(expert.problem.messages is not None for expert in experts)
    if 0 < chats < len(experts):
        raise InputError("--layout: some problems are chat messages and some text; expected messages or alpaca")
    return "messages" if chats else "prompt"


def _row(layout: str, expert: Expert) -> dict[str, Any]:
    problem, text = expert.problem, expert.rollout.text
    turns = [{"role": turn["role"], "content": turn["content"]} for turn in problem.messages or ()]
    if layout == "messages":
        given = turns or [{"role": "user", "content": problem.prompt or ""}]
        return {"messages": [*given, {"role": "assistant", "content": text}]}
    if layout == "prompt":
        if problem.prompt is None:
            raise InputError(f"--layout prompt: {row_name(problem)} is chat messages; expected --layout messages")
        return {"prompt": problem.prompt, "completion": text}
    system = turns.pop(0)["content"] if turns and turns[0]["role"] == "system" else ""
    if turns and [turn["role"] for turn in turns] != ["user"]:
        raise InputError(f"--layout alpaca: {row_name(problem)} has several turns; expected --layout messages")
    asked = turns[0]["content"] if turns else problem.prompt or ""
    row = {"instruction": asked, "input": "", "output": text}
    return {**row, "system": system} if system else row


def _write_messages(folder: Path, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    turn = pa.struct([("role", pa.string()), ("content", pa.string())])
    _write_lines(folder / "messages.jsonl", rows)
    _write_table(folder / "messages.parquet", rows, pa.schema([("messages", pa.list_(pa.field("element", turn)))]))
    return ["messages.jsonl", "messages.parquet"]


def _write_prompts(folder: Path, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    _write_lines(folder / "prompt_completion.jsonl", rows)
    schema = pa.schema([("prompt", pa.string()), ("completion", pa.string())])
    _write_table(folder / "prompt_completion.parquet", rows, schema)
    return ["prompt_completion.jsonl", "prompt_completion.parquet"]


def _write_alpaca(folder: Path, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    system = any("system" in row for row in rows)
    whole = [{**row, "system": row.get("system", "")} for row in rows] if system else rows
    (folder / "alpaca.json").write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    columns = {
        "prompt": "instruction",
        "query": "input",
        "response": "output",
        **({"system": "system"} if system else {}),
    }
    info = {"experts": {"file_name": "alpaca.json", "columns": columns}}
    (folder / "dataset_info.json").write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")
    return ["dataset_info.json", "alpaca.json"]


_WRITERS: dict[str, Callable[[Path, Sequence[Mapping[str, Any]]], list[str]]] = {
    "messages": _write_messages,
    "prompt": _write_prompts,
    "alpaca": _write_alpaca,
}
"""Each gives the names of its files, that of the data last"""


def _write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        # U+2028 and the like are escaped: some readers end a line at them
        file.writelines(_LINE_ENDS.sub(_escaped, json.dumps(row, ensure_ascii=False)) + "\n" for row in rows)


_LINE_ENDS = re.compile("[\x85\u2028\u2029]")


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def _write_table(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema), path, compression="zstd")


def _provenance(run: Path, experts: Sequence[Expert]) -> list[dict[str, Any]]:
    """Of each row in order the rollout that it was; of an imported one also where it came from."""
    sources = {}
    for path in list_sources(run):
        for row in pq.read_table(path, columns=SOURCES.names).to_pylist():
            sources[row["branch"], row["iteration"], row["step"], row["problem_id"], row["sample"]] = row
    found = []
    for expert in experts:
        r = expert.rollout
        address = {
            "problem_id": r.problem_id,
            "branch": r.branch,
            "iteration": r.iteration,
            "step": r.step,
            "sample": r.sample,
        }
        came = sources.get((r.branch, r.iteration, r.step, r.problem_id, r.sample), {})
        where = {key: came[key] for key in ("trainer", "file", "line") if key in came}
        found.append({**address, "success_rate": round(expert.rate, 6), **where})
    return found
