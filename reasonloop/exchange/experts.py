"""`reasonloop experts`: a run's expert set as files that other trainers' supervised fine-tuning reads."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from reasonloop import config
from reasonloop.config import Recipe
from reasonloop.errors import InputError
from reasonloop.files import made_whole, require_new
from reasonloop.records import Problem, Rollout
from reasonloop.store.experts import chosen_experts, distinct, solved_experts
from reasonloop.store.for_trainers import COLUMNS, expert_row, write_table
from reasonloop.store.segments import stored_segments
from reasonloop.store.sources import ADDRESS, list_sources
from reasonloop.tasks import load_task, row_name, task_problems

Rows = list[dict[str, Any]]
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
    require_new(out)
    recipe = _recipe(run, list(overrides))
    found = choose(recipe, run)
    if not found.experts:
        raise InputError(f"{run}: no {found.line()}; expected right responses to problems that are hard: a larger "
                         "rloop.hard_threshold lets more problems through (1: all)")  # fmt: skip
    chosen = layout or _layout(found.experts)
    make = _alpaca if chosen == "alpaca" else partial(expert_row, chosen)
    rows = [make(expert.problem, expert.rollout.text) for expert in found.experts]
    with made_whole(out) as folder:
        names = _WRITERS[chosen](folder, rows)
        _write_lines(folder / "provenance.jsonl", _provenance(run, found.experts))
        problems = len({expert.problem.id for expert in found.experts})
        card = CARD.format(data=names[-1], run=run.name, count=len(found.experts), problems=problems)
        (folder / "README.md").write_text(card, encoding="utf-8")
    print(found.line())
    for name in (*names, "provenance.jsonl"):
        print(out / name)
    return [out / name for name in names]


def _recipe(run: Path, overrides: list[str]) -> Recipe:
    if not (run / "config.toml").is_file():
        raise InputError(f"{run}: no run folder (no config.toml in it)")
    return config.of_run(run, overrides)


def choose(recipe: Recipe, run: Path) -> Chosen:
    """The experts of all iterations, each chosen as RLoop does; equal texts of one problem once, the earliest."""
    problems = {
        problem.id: problem
        for problem in task_problems(load_task(recipe.task.name, recipe.task.options), recipe.task.name)
    }
    found, texts, iteration = Chosen(), set(), 0
    while stored_segments(run / "trajectories", "main", iteration):
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


def _alpaca(problem: Problem, text: str) -> dict[str, Any]:
    turns = [*(problem.messages or ({"role": "user", "content": problem.prompt or ""},))]
    system = turns.pop(0)["content"] if turns[0]["role"] == "system" else ""
    if [turn["role"] for turn in turns] != ["user"]:
        raise InputError(f"--layout alpaca: {row_name(problem)} has several turns; expected --layout messages")
    row = {"instruction": turns[0]["content"], "input": "", "output": text}
    return {**row, "system": system} if system else row


def _write_columns(folder: Path, rows: Rows, layout: str, stem: str) -> list[str]:
    _write_lines(folder / f"{stem}.jsonl", rows)
    write_table(folder / f"{stem}.parquet", rows, COLUMNS[layout])
    return [f"{stem}.jsonl", f"{stem}.parquet"]


def _write_alpaca(folder: Path, rows: Rows) -> list[str]:
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


_WRITERS: dict[str, Callable[[Path, Rows], list[str]]] = {
    "messages": partial(_write_columns, layout="messages", stem="messages"),
    "prompt": partial(_write_columns, layout="prompt", stem="prompt_completion"),
    "alpaca": _write_alpaca,
}
"""By layout; each gives the names of its files, that of the data last"""


def _write_lines(path: Path, rows: Rows) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        # U+2028 and the like are escaped: some readers end a line at them
        file.writelines(_LINE_ENDS.sub(_escaped, json.dumps(row, ensure_ascii=False)) + "\n" for row in rows)


_LINE_ENDS = re.compile("[\x85\u2028\u2029]")


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def _provenance(run: Path, experts: Sequence[Expert]) -> list[dict[str, Any]]:
    """Of each row in order the rollout that it was; of an imported one also where it came from."""
    addresses = [{name: getattr(expert.rollout, name) for name in ADDRESS} for expert in experts]
    wanted = {tuple(address.values()): address for address in addresses}
    for path in list_sources(run):
        for row in pq.read_table(path).to_pylist():
            if (address := wanted.get(tuple(row[name] for name in ADDRESS))) is not None:
                address |= {key: row[key] for key in ("trainer", "file", "line")}
    return [
        {**address, "success_rate": round(expert.rate, 6)} for address, expert in zip(addresses, experts, strict=True)
    ]
