"""A study's runs: which are finished, and what is kept of them beside the study, so that arms and seeds can be added later,
elsewhere, without training the others again."""

from __future__ import annotations

import os
import tarfile
import tempfile
from pathlib import Path

from reasonloop.config import Recipe
from reasonloop.config.recipe import GONE
from reasonloop.errors import InputError
from reasonloop.files import open_own, read_object
from reasonloop.runs.folder import MAY_DIFFER, differences
from reasonloop.study.definition import Study
from reasonloop.study.earlier import upgrade

KEPT = ("config.toml", "inputs.json", "state.json", "metrics.jsonl", "evals")
"""What a comparison reads of a run"""


def stage_of(run: Path) -> str | None:
    """Where a run is: "done" at its end; None for one that hasn't begun."""
    path = run / "state.json"
    return str(read_object(path).get("stage")) if path.is_file() else None


def seconds_of(run: Path) -> float:
    """Seconds of work on the run so far"""
    path = run / "state.json"
    return float(read_object(path).get("seconds", 0.0)) if path.is_file() else 0.0


def finished(run: Path) -> bool:
    return stage_of(run) == "done"


def counts_alone(run: Path) -> bool:
    """Whether it is a finished run of which only what a comparison reads is there."""
    return finished(run) and not (run / "trajectories").is_dir()


def arguments_of(study: Study, runs: Path) -> list[str]:
    """The study's finished runs as `reasonloop compare` takes them: NAME=RUN."""
    every = ((arm, runs / f"{arm}-{seed}") for arm in study.arms for seed in study.seeds)
    return [f"{arm}={run}" for arm, run in every if finished(run)]


def packed(study: Study, run: str) -> Path:
    """Where the run of this name is kept."""
    return study.archive / f"{run}.tar.gz"


def pack(study: Study, run: Path) -> None:
    """Keeps a finished run's recipe, evaluations without their texts, and metrics beside the study, where that hasn't been
    done."""
    file = packed(study, run.name)
    if file.exists():
        return
    file.parent.mkdir(exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    handle = open_own(partial, os.O_WRONLY | os.O_EXCL)
    with os.fdopen(handle, "wb") as raw, tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for name in (name for name in KEPT if (run / name).exists()):  # runs of earlier versions have no inputs.json
            tar.add(run / name, f"{run.name}/{name}", filter=_counts)
    partial.rename(file)


def _counts(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Texts are many times as large as what a comparison reads."""
    return None if member.name.endswith(".parquet") else member


def extract(tar: tarfile.TarFile, folder: Path) -> None:
    """The archive's files and folders into the folder, and nothing else anywhere else. tarfile.TarError for what is neither.

    Python has this as `filter="data"`, but 3.11 only from 3.11.4 on (Debian 12 has 3.11.2).
    """
    if hasattr(tarfile, "data_filter"):
        tar.extractall(folder, filter="data")
        return
    for member in tar.getmembers():
        parts = Path(member.name).parts
        if not (member.isfile() or member.isdir()) or ".." in parts or Path(member.name).is_absolute():
            raise tarfile.TarError(f"{member.name}: expected plain files and folders")
    tar.extractall(folder)


def unpack(study: Study, runs: Path) -> None:
    """Puts the runs that were finished elsewhere, or by an earlier version, into RUNS, where they aren't there already."""
    runs.mkdir(parents=True, exist_ok=True)
    for file in sorted(study.archive.glob("*.tar.gz")):
        name = file.name.removesuffix(".tar.gz")
        if (runs / name).exists():
            continue
        with tempfile.TemporaryDirectory(dir=runs, prefix=".unpacking-") as folder:
            try:
                with tarfile.open(file) as tar:
                    extract(tar, Path(folder))
            except (tarfile.TarError, OSError, EOFError) as error:
                raise InputError(f"{file}: cannot be unpacked ({error}); restore it, or delete it") from None
            if not (Path(folder) / name / "config.toml").is_file():
                raise InputError(f"{file}: holds no run {name}; restore it, or delete it")
            upgrade(Path(folder) / name)
            (Path(folder) / name).rename(runs / name)


def another_recipe(run: Path, recipe: Recipe) -> str | None:
    """An option that a run had otherwise, or that one of the two leaves unset. Options that don't touch the result or have
    gone since are passed over."""
    found = differences(recipe, run)
    return next((str(one) for one in found if one.key not in GONE and not one.key.startswith(MAY_DIFFER)), None)
