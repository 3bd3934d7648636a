"""What a run depends on beside its recipe: its problems, their prompts as tokens, and the files of its models.

RUN/inputs.json has a digest of each from when the run began, and the date that its chat template writes. A run that goes on
with other ones would be neither the one run nor the other. Free of torch.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from reasonloop.config import Recipe
from reasonloop.errors import InputError
from reasonloop.files import read_object, write_atomically
from reasonloop.policy.adapter_folders import is_adapter
from reasonloop.policy.hub import SMALL, hub_name
from reasonloop.policy.loading import adapter_base, resolve
from reasonloop.policy.stored import weight_files
from reasonloop.records import Group, Problem
from reasonloop.runs.models import sources

NAME = "inputs.json"
DATE = "REASONLOOP_DATE"
"""The variable by which a study's runs have one date"""
ASKED = ("train", "probe", "test")
"""Splits whose prompts are sampled from"""
_PLACES = ("file", "line")
"""What of a problem's meta says where it was read, and nothing of what it is"""
WHOLE = 64 << 20
"""Bytes of a file that is read to its last one; of a larger one, for the time that it would take, its size, both ends, and
so much of every MiB:"""
PART = 4 << 10
MIB = 1 << 20


def date_of(recipe: Recipe, run: Path) -> datetime.date:
    """What a run's chat template writes as today's date: that of its begin, or the recipe's, its study's, or today's."""
    known = read(run).get("date") or recipe.model.date or os.environ.get(DATE)
    if not isinstance(known, str):
        return known or datetime.date.today()
    try:
        return datetime.date.fromisoformat(known)
    except ValueError:
        raise InputError(f"{DATE} = {known!r}: no date; expected one, as 2026-11-28") from None


def read(run: Path) -> dict[str, Any]:
    """What a run remembers; empty for a run that hasn't begun to work, or of an earlier version."""
    path = run / NAME
    return read_object(path) if path.is_file() else {}


@dataclass(frozen=True)
class Inputs:
    """Those of a run, as they are now."""

    recipe: Recipe
    date: datetime.date
    problems: Mapping[str, Sequence[Problem]]
    """By split"""
    prompts: Mapping[str, Sequence[Group]]

    def digests(self) -> dict[str, Any]:
        return {
            "date": self.date.isoformat(),
            "problems": {split: of_problems(problems) for split, problems in self.problems.items()},
            "prompts": {split: of_prompts(prompts) for split, prompts in self.prompts.items()},
            "files": {
                f"{option}: {name}": of_file(file)
                for option, source in sources(self.recipe).items()
                for name, file in model_files(source).items()
            },
        }

    def settle(self, run: Path, write: Callable[[Path, str], None] = write_atomically) -> None:
        """Remembers them in the folder of a run that begins. Raises InputError where one that goes on has others, and
        which."""
        now, then = self.digests(), read(run)
        if not then:
            write(run / NAME, json.dumps(now, indent=1, sort_keys=True) + "\n")
            return
        told = [*self._other_date(then), *self._other_problems(run, then, now), *_other_files(then, now)]
        if not told and then["prompts"] != now["prompts"]:
            told = [
                "the same problems become other prompts: other versions of the tokenizer's libraries, or a chat template "
                "that changes"
            ]
        if told:
            raise InputError(
                f"--out {run}: the run began with other inputs: {'; '.join(told)}; expected those that it began with, or "
                "another --out"
            )

    def _other_date(self, then: Mapping[str, Any]) -> list[str]:
        wanted = self.recipe.model.date
        same = wanted is None or wanted.isoformat() == then["date"]
        return [] if same else [f"another model.date ({then['date']} there, {wanted} here)"]

    def _other_problems(self, run: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
        from reasonloop.store.texts import read_problems

        splits = [split for split in now["problems"] if then["problems"].get(split) != now["problems"][split]]
        if not splits:
            return []
        before = {(row["problem_id"], row["split"]): (row["prompt"], row["answer"]) for row in read_problems(run)}
        found = []
        for split in splits:
            here = {problem.id: (problem.text, problem.answer) for problem in self.problems[split]}
            there = {number: own for (number, of), own in before.items() if of == split}
            other = [number for number in dict.fromkeys([*there, *here]) if there.get(number) != here.get(number)]
            which = f"{len(other)} of {len(there)}, {other[0]!r} for one" if other else "in their order, or in more"
            found.append(f"other {split} problems ({which})")
        return found


def of_problems(problems: Iterable[Problem]) -> str:
    """A digest of problems in their order: of all that they are, wherever they were read."""
    digest = _digest()
    for problem in problems:
        meta = {key: value for key, value in problem.meta.items() if key not in _PLACES}
        asked = [dict(message) for message in problem.messages] if problem.messages is not None else problem.prompt
        digest.update(
            json.dumps([problem.id, asked, problem.answer, problem.response, meta], default=str).encode() + b"\n"
        )
    return digest.hexdigest()


def of_prompts(prompts: Iterable[Group]) -> str:
    digest = _digest()
    for prompt in prompts:
        digest.update(len(prompt.prompt_tokens).to_bytes(8, "little") + prompt.prompt_tokens.tobytes())
    return digest.hexdigest()


def model_files(source: str) -> dict[str, Path]:
    """What a model is loaded from, by name, with what is beneath an adapter. Of the hub there are none: its commits are
    remembered. Raises InputError as `resolve`."""
    if hub_name(source):
        return {}
    place = resolve(source)
    if place.is_file():
        return {place.name: place}
    names = [path.name for path in place.iterdir() if path.is_file()]
    wanted = {
        *weight_files(place, names),
        *(name for name in names if any(fnmatch(name, one) for one in (*SMALL, "*.py"))),
    }
    beneath = model_files(adapter_base(place)) if is_adapter(place) else {}
    return {name: place / name for name in sorted(wanted)} | {f"beneath/{name}": file for name, file in beneath.items()}


def of_file(path: Path) -> str:
    """A digest of a file. Of a large one most is not read: a change of less than a MiB may not be seen."""
    digest, size = _digest(), path.stat().st_size
    with path.open("rb") as file:
        if size <= WHOLE:
            digest.update(file.read())
            return digest.hexdigest()
        digest.update(size.to_bytes(8, "little") + file.read(MIB))
        for start in range(MIB, size - MIB, MIB):
            file.seek(start)
            digest.update(file.read(PART))
        file.seek(size - MIB)
        digest.update(file.read(MIB))
    return digest.hexdigest()


def _digest() -> Any:
    return hashlib.blake2b(digest_size=16)


def _other_files(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    there, here = then["files"], now["files"]
    names = [name for name in dict.fromkeys([*there, *here]) if there.get(name) != here.get(name)]
    return [f"another {name.partition(': ')[2]} of the {name.partition(': ')[0]}" for name in names]
