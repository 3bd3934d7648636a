"""The problems behind a run's rollouts: what the store doesn't hold of them, their gold answers, comes from the task."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from reasonloop.errors import InputError, first_line
from reasonloop.records import Problem
from reasonloop.report.run import RunData
from reasonloop.tasks import load_task, task_problems


def problems_of(run: RunData) -> Mapping[str, Problem]:
    """The task's problems by id; where it can't be loaded (its file or class isn't here) none, and `run.missing` says so."""
    try:
        chosen = run.recipe().task
        return _problems(chosen.name, json.dumps(chosen.options, default=str))
    except InputError as error:
        run.missing.append(f"Gold answers: the task could not be loaded ({first_line(error)}).")
        return {}


@lru_cache(maxsize=1)
def _problems(name: str, options: str) -> dict[str, Problem]:
    """Kept for a report that is written again and again: making problems can take a second, reading them longer."""
    chosen: dict[str, Any] = json.loads(options)
    return {problem.id: problem for problem in task_problems(load_task(name, chosen), name)}
