"""Runs a study, arms x seeds, and compares its arms: python evidence/study.py FOLDER [--seeds 0 1 ...] [--arms A ...]

FOLDER/study.toml: `recipe` (a file beside it), `seeds`, and `[arms]`, a list of recipe overrides each. Every run is an
ordinary `reasonloop run` in RUNS/<arm>-<seed>, one CPU thread each, `--jobs` at a time. Stopped at any moment, the same
command goes on: finished runs are left alone, begun ones are continued. At the end (or with --compare-only, of whatever
is finished) FOLDER/results.json and RUNS/compare.html are written by `reasonloop compare`.

Of every finished run FOLDER/finished/<arm>-<seed>.tar.gz keeps what a comparison reads: the resolved recipe, the
evaluations with their counts for each problem, and the metrics of each step. It is committed, so that arms and seeds can be
added to a study later, elsewhere, without training the others again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

from upgrade import upgrade

from reasonloop import config
from reasonloop.config import flat, stored_recipe

THREADS = ("threads=1",)
KEPT = ("config.toml", "state.json", "metrics.jsonl", "evals")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=Path, help="where the runs go (default: runs/study-<folder's name>)")
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--arms", nargs="+")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--compare-only", action="store_true")
    parser.add_argument(
        "--train-again", action="store_true", help="also runs of which FOLDER/finished has the counts alone"
    )
    arguments = parser.parse_args()
    study = tomllib.loads((arguments.folder / "study.toml").read_text())
    runs = arguments.runs or Path("runs") / f"study-{arguments.folder.name}"
    arms = {name: study["arms"][name] for name in arguments.arms or study["arms"]}
    seeds = arguments.seeds or study["seeds"]
    runs.mkdir(parents=True, exist_ok=True)
    if not arguments.train_again:
        unpack(arguments.folder / "finished", runs)
    recipe = arguments.folder / study["recipe"]
    for arm, seed in product(arms, seeds):
        out = runs / f"{arm}-{seed}"
        if arguments.train_again and finished(out) and not (out / "trajectories").is_dir():
            shutil.rmtree(out)
        if finished(out) and (key := another_recipe(out, config.load(recipe, [*arms[arm], f"seed={seed}", *THREADS]))):
            parser.error(
                f"{out}: it was made with another {key} than {recipe} and study.toml say: delete it, and its archive"
            )
    if not arguments.compare_only:
        jobs = [(arm, seed) for arm in arms for seed in seeds]  # an arm is whole before the next one begins
        began = time.monotonic()
        with ThreadPoolExecutor(arguments.jobs) as pool:

            def run(job: tuple[str, int]) -> int:
                code = work(recipe, arms[job[0]], *job, runs, began)
                return code or pack(runs / f"{job[0]}-{job[1]}", arguments.folder / "finished")

            codes = list(pool.map(run, jobs))
        if any(codes):
            print(f"{sum(map(bool, codes))} runs are not finished: the same command goes on", file=sys.stderr)
            return 1
    return compare(arguments.folder, runs, study["arms"], study["seeds"])


def work(recipe: Path, overrides: list[str], arm: str, seed: int, runs: Path, began: float) -> int:
    out = runs / f"{arm}-{seed}"
    if finished(out):
        return 0
    command = [sys.executable, "-m", "reasonloop", "run", str(recipe), *overrides, f"seed={seed}", *THREADS]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    with (runs / f"{arm}-{seed}.log").open("a") as log:
        code = subprocess.run([*command, "--out", str(out)], stdout=log, stderr=log, env=environment).returncode
    print(
        f"{time.monotonic() - began:7.0f} s  {arm} seed {seed}: {'done' if code == 0 else f'exit {code}'}", flush=True
    )
    return code


def another_recipe(run: Path, recipe: config.Recipe) -> str | None:
    """An option that a finished run had otherwise; options that its version didn't know are passed over."""
    there = flat(stored_recipe(tomllib.loads((run / "config.toml").read_text(encoding="utf-8"))))
    here = flat(tomllib.loads(config.dumps(recipe)))
    return next((f"{key} ({there[key]!r})" for key in here if there.get(key, here[key]) != here[key]), None)


def finished(run: Path) -> bool:
    path = run / "state.json"
    return path.is_file() and json.loads(path.read_text())["stage"] == "done"


def arguments_of(runs: Path, arms: Iterable[str], seeds: Iterable[int]) -> list[str]:
    """The study's finished runs as `reasonloop compare` takes them: NAME=RUN."""
    every = ((arm, runs / f"{arm}-{seed}") for arm in arms for seed in seeds)
    return [f"{arm}={run}" for arm, run in every if finished(run)]


def pack(run: Path, archive: Path) -> int:
    """Keeps a finished run's recipe, evaluations and metrics in ARCHIVE; 0."""
    file = archive / f"{run.name}.tar.gz"
    if not file.exists():
        archive.mkdir(exist_ok=True)
        partial = file.with_suffix(".partial")
        with tarfile.open(partial, "w:gz") as tar:
            for name in KEPT:
                tar.add(run / name, f"{run.name}/{name}")
        partial.rename(file)
    return 0


def unpack(archive: Path, runs: Path) -> None:
    """Puts the runs that were finished elsewhere, or by an earlier version, into RUNS, where they aren't there already."""
    for file in sorted(archive.glob("*.tar.gz")):
        if not (runs / file.name.removesuffix(".tar.gz")).exists():
            with tarfile.open(file) as tar:
                tar.extractall(runs, filter="data")
            upgrade(runs / file.name.removesuffix(".tar.gz"))


def compare(folder: Path, runs: Path, arms: dict[str, list[str]], seeds: list[int]) -> int:
    found = arguments_of(runs, arms, seeds)
    options = ["--json", str(folder / "results.json"), "--out", str(runs / "compare.html")]
    return subprocess.run([sys.executable, "-m", "reasonloop", "compare", *found, *options]).returncode


if __name__ == "__main__":
    sys.exit(main())
