"""What a command of the user's own gets from a run, and what it hands back."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reasonloop.config import Recipe, flat
from reasonloop.config.explorer import filled
from reasonloop.errors import RunError
from reasonloop.files import replace_folder
from reasonloop.policy.adapter_folders import is_adapter
from reasonloop.policy.hub import hub_name
from reasonloop.policy.loading import bundled_names, hugging_face_folder, resolve
from reasonloop.records import Place

SEEDS = 2**31
"""Trainers take seeds below this"""
_NUMBERS = re.compile(r"(\d+)")


def plain_folder(source: str) -> Path | None:
    """A policy's folder, where it is a plain Hugging Face folder of the user's own; None for a bundled model, one of the
    hub, a GGUF file or an adapter: what is then handed on has to be written."""
    path = resolve(source)
    plain = source not in bundled_names() and hub_name(source) is None and (path / "config.json").is_file()
    return path.absolute() if plain else None


def copy_policy(source: str, folder: Path) -> None:
    """The files of a bundled model, of one of the hub, or of a GGUF file, as a Hugging Face folder of its own."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(hugging_face_folder(source), partial)
    replace_folder(partial, folder)


def stage_folder(run: Path, place: Place) -> Path:
    """Where a stage's command works."""
    return run / "commands" / place.name


def words_of(
    recipe: Recipe, which: str, run: Path, place: Place, model: Path | str, given: Mapping[str, Any]
) -> list[str]:
    """The words of the command of `[explorer]` or `[finetuner]` for a stage of the run in a folder. `given`: what stands for
    the names that only this command has."""
    values = flat(recipe.model_dump(mode="json")) | {
        **given,
        "model": model,
        "out": stage_folder(run, place) / "out",
        "recipe": run / "config.toml",
        "seed": place.draw(recipe.seed, "command", 0) % SEEDS,
        "iteration": place.iteration,
    }
    return filled(getattr(recipe, which).command, values)


def explorer_values(recipe: Recipe, run: Path, rollouts: int) -> dict[str, Any]:
    return {"problems": run / "commands" / "problems.parquet", "steps": recipe.rl.steps, "rollouts": rollouts}


def finetuner_values(run: Path, place: Place, epochs: float) -> dict[str, Any]:
    return {"experts": stage_folder(run, place) / "experts", "epochs": f"{epochs:g}"}


def handed_back(out: Path, pattern: str, what: str) -> Path:
    """The policy's folder below `out` that a pattern names; of several the one with the highest number in its name. Raises
    RunError where there is no Hugging Face folder, and no adapter's."""
    there = out.glob(pattern) if pattern else [out]
    found = [path for path in there if (path / "config.json").is_file() or is_adapter(path)]
    if not found:
        expected = f"{out}/{pattern}" if pattern else str(out)
        raise RunError(
            f"{what}: the command has left no Hugging Face folder at {expected}; expected one with a config.json, or "
            f"{what.partition('.')[0]}.model to say where it is"
        )
    return max(found, key=lambda path: [int(part) if part.isdigit() else part for part in _NUMBERS.split(str(path))])
