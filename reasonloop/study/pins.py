"""What is one in all runs of a study, however long it takes: the commit of each of its models of the hub, and the date that
chat templates write as today's."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from itertools import product
from pathlib import Path

from reasonloop import config
from reasonloop.config import Recipe
from reasonloop.policy.hub import HubName, commit_of
from reasonloop.runs.inputs import read
from reasonloop.runs.models import hub_models, pins
from reasonloop.study.definition import Study
from reasonloop.study.earlier import Recorder


def pins_of(study: Study, plans: Mapping[str, Recorder], runs: Path, ask: bool = True) -> dict[str, list[str]]:
    """By arm: the overrides that hold its models of the hub at the commit that the study's earlier runs have, or, if it may
    be asked, that the hub has now. Raises InputError where it can't say."""
    known: dict[str, str] = {}
    for arm, seed in product(study.arms, study.seeds):
        wanted, there = plans[arm].recipe, _recipe_of(runs / f"{arm}-{seed}" / "config.toml")
        if there is not None and hub_models(wanted):
            known = _commits(wanted, there) | known
    for plan in plans.values():
        for source, name in hub_models(plan.recipe).items():
            if ask and source not in known:
                known[source] = commit_of(name)
    every = {
        arm: pins(plan.recipe, known) for arm, plan in plans.items() if hub_models(plan.recipe).keys() <= known.keys()
    }
    return {arm: found for arm, found in every.items() if found}


def date_of_study(study: Study, runs: Path) -> str:
    """The date that its earlier runs have, or else today's."""
    known = (read(runs / f"{arm}-{seed}").get("date") for arm, seed in product(study.arms, study.seeds))
    return next((date for date in known if date), datetime.date.today().isoformat())


def _recipe_of(file: Path) -> Recipe | None:
    return config.of_run(file.parent) if file.is_file() else None


def _commits(wanted: Recipe, there: Recipe) -> dict[str, str]:
    """The commits that a run of the study has, by what the study calls the models."""
    judges = wanted.exploration.judge.model, there.exploration.judge.model
    found = {}
    for source, own in ((wanted.model.source, there.model.source), judges):
        name, _, commit = own.rpartition("@")
        if name == source.partition("@")[0] and HubName(name, commit).is_commit:
            found[source] = commit
    return found
