"""`reasonloop study`, the verb."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import product
from pathlib import Path

from rich.console import Console
from rich.text import Text

from reasonloop.compare.command import compare_runs
from reasonloop.config import Recipe
from reasonloop.errors import InputError, RunError, Stopped
from reasonloop.evaluation.table import WIDTH, plain_table
from reasonloop.execute import dry_run
from reasonloop.machine.threads import available_cores
from reasonloop.own import look_in
from reasonloop.runs.folder import check_folder
from reasonloop.study.archive import (
    another_recipe,
    arguments_of,
    counts_alone,
    finished,
    pack,
    packed,
    seconds_of,
    stage_of,
    unpack,
)
from reasonloop.study.definition import Study, checked_arms, load_study
from reasonloop.study.earlier import Recorder
from reasonloop.study.pins import date_of_study, pins_of
from reasonloop.study.work import Crew, Job


@dataclass(frozen=True)
class Wanted:
    """What the command line asks of a study."""

    runs: Path | None = None
    """Where the runs go; None: runs/study-<its name>"""
    seeds: Sequence[int] | None = None
    arms: Sequence[str] | None = None
    jobs: int | None = None
    """Runs at a time; None: as many as the cores have room for, one on a GPU"""
    dry_run: bool = False
    compare_only: bool = False
    train_again: bool = False
    """Also runs of which only what a comparison reads is there"""


def run_study(path: Path, wanted: Wanted) -> None:
    """Runs what isn't finished yet of the study's arms and seeds, and compares all that are.

    Raises InputError before anything runs, Stopped after Ctrl-C, and RunError when runs have failed; the others are done
    then, too.
    """
    study = load_study(path)
    chosen = study.only(wanted.arms, wanted.seeds)
    look_in(study.recipe.parent)
    plans = checked_arms(study)
    runs = wanted.runs or Path("runs") / f"study-{study.name}"
    if not wanted.train_again and not wanted.dry_run:
        unpack(study, runs)
    if pins := pins_of(study, plans, runs, ask=not wanted.compare_only):  # models of the hub
        study, chosen = replace(study, pins=pins), replace(chosen, pins=pins)
        plans = checked_arms(study)
    if wanted.dry_run:
        check_runs(chosen, plans, runs)
        print_plan(chosen, plans, runs, wanted)
        return
    check_runs(chosen, plans, runs, begin=not wanted.compare_only)
    if not wanted.compare_only:
        _work(chosen, plans, runs, wanted)
    compare(study, runs)


def compare(study: Study, runs: Path) -> None:
    """Compares the study's finished runs: prints the tables, writes its result file and RUNS/compare.html."""
    found = arguments_of(study, runs)
    if not found:
        raise InputError(f"{runs}: no finished run of {study.file} in it; expected some to compare")
    compare_runs(found, runs / "compare.html", study.results, baseline=study.baseline)


def check_runs(study: Study, plans: Mapping[str, Recorder], runs: Path, begin: bool = True) -> None:
    """Raises InputError for a run there that another recipe made, and, where others are to `begin`, for bad input that a run
    would end at at once."""
    asked: set[str] = set()
    for arm, seed in product(study.arms, study.seeds):
        run, recipe = runs / f"{arm}-{seed}", recipe_of(plans[arm], seed)
        try:
            if not (run / "config.toml").is_file():
                if not begin:
                    continue
                key = recipe.model_copy(update={"seed": 0}).model_dump_json(
                    include={"model", "task", "rewards", "sampling"}
                )
                if key not in asked:  # the same problems are read and checked once
                    asked.add(key)
                    with redirect_stdout(io.StringIO()):
                        dry_run(recipe, run)
            elif not finished(run):
                check_folder(recipe, run)
            elif told := another_recipe(run, recipe):
                raise InputError(
                    f"{run}: made by another recipe: {told}; expected what {study.file} says: delete it and its archive "
                    f"{packed(study, run.name)}, or give this arm another name"
                )
        except InputError as error:
            raise InputError(f"{study.file}: arm {arm!r}: {error}") from None


def recipe_of(plan: Recorder, seed: int) -> Recipe:
    return plan.recipe.model_copy(update={"seed": seed})


def _work(study: Study, plans: Mapping[str, Recorder], runs: Path, wanted: Wanted) -> None:
    runs.mkdir(parents=True, exist_ok=True)
    jobs = []
    for arm, seed in product(study.arms, study.seeds):  # an arm is whole before the next one begins
        run = runs / f"{arm}-{seed}"
        if wanted.train_again and counts_alone(run):
            shutil.rmtree(run)
        if not finished(run):
            jobs.append(Job(arm, seed, run, study.overrides(arm, seed), plans[arm].units, date_of_study(study, runs)))
        elif not counts_alone(run):
            pack(study, run)
    if not jobs:
        return
    crew = Crew(study.recipe, study.threads, at_once(study, plans, wanted), lambda job: pack(study, job.run))
    crew.work(jobs)
    for job in crew.failed:
        print(f"failed: {job.name} (exit {job.code}): {job.last_line()}; all of it: {job.log}", file=sys.stderr)
    if crew.stopping and (crew.waiting or crew.failed):
        raise Stopped(str(study.file))
    if crew.failed:
        rest = f"{len(crew.failed)} of {len(jobs)} runs failed: {', '.join(job.name for job in crew.failed)}"
        raise RunError(f"{rest}; the same command tries them again, with --compare-only it compares the finished ones")


def at_once(study: Study, plans: Mapping[str, Recorder], wanted: Wanted) -> int:
    """Runs at a time."""
    if wanted.jobs is not None:
        return wanted.jobs
    on_gpu = any(Path("/dev").glob("nvidia[0-9]*"))
    if on_gpu and any(plan.recipe.model.device != "cpu" for plan in plans.values()):
        return 1
    return max(1, available_cores() // study.threads)


def print_plan(study: Study, plans: Mapping[str, Recorder], runs: Path, wanted: Wanted) -> None:
    """A row a run: what it costs, and how far it is. Nothing is written."""
    every = [(arm, runs / f"{arm}-{seed}") for arm, seed in product(study.arms, study.seeds)]
    trained = [(plans[arm].units, seconds_of(run)) for arm, run in every if finished(run) and not counts_alone(run)]
    rate = sum(s for _, s in trained) / sum(u for u, _ in trained) if sum(u for u, _ in trained) else None
    table = plain_table()
    timed = bool(rate) or any(seconds_of(run) for _, run in every if finished(run))
    for column in ("run", "rollouts", *(["time"] if timed else []), "state"):
        table.add_column(column, justify="right" if column in ("rollouts", "time") else "left", overflow="fold")
    rollouts, left = 0, 0.0
    for arm, run in every:
        kept = packed(study, run.name).is_file() and not run.exists()
        done = (finished(run) or kept) and not (wanted.train_again and (kept or counts_alone(run)))
        if not done:
            rollouts += plans[arm].rollouts
            left += max(0.0, (rate or 0.0) * plans[arm].units - seconds_of(run))
        seconds = seconds_of(run) if finished(run) else (rate or 0.0) * plans[arm].units
        state = "finished" if done else f"begun, at {stage_of(run)}" if stage_of(run) else "to do"
        cells = [run.name, f"{plans[arm].rollouts:,}", *([_time(seconds)] if timed else []), state]
        table.add_row(*map(Text, cells))
    Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False).print(table)
    jobs = at_once(study, plans, wanted)
    known = f", about {_time(left / jobs)} in all" if rate and left else ""
    print(f"\nto do: {rollouts:,} training rollouts{known}; {jobs} at a time, threads of a run: {study.threads}")
    print(f"runs     {runs}\nresults  {study.results}, {runs / 'compare.html'}")


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds))) if seconds else "?"
