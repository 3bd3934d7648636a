"""Tasks by name: registered ones, problem files, and classes of the user's own."""

from __future__ import annotations

import json
from typing import Any, cast

from pydantic import BaseModel

from reasonloop.config.section import validated
from reasonloop.errors import InputError
from reasonloop.own import load_named, load_own, nearest
from reasonloop.tasks.base import Task
from reasonloop.tasks.files import is_source
from reasonloop.verify.worker import crash

TASKS = {
    "countdown": "reasonloop.tasks.countdown.task:Countdown",
    "arithmetic": "reasonloop.tasks.arithmetic:Arithmetic",
    "file": "reasonloop.tasks.jsonl.task:Jsonl",
    "jsonl": "reasonloop.tasks.jsonl.task:Jsonl",
    "gsm8k": "reasonloop.tasks.jsonl.task:Gsm8k",
    "code": "reasonloop.tasks.code.task:Code",
    "humaneval": "reasonloop.tasks.code.files:HumanEval",
    "mbpp": "reasonloop.tasks.code.files:Mbpp",
    "gym": "reasonloop.tasks.gym.task:Gym",
}
"""Registered names, and the class behind each as `module:Class`"""


def task_target(name: str) -> str:
    """The `module:Class` behind a registered name, or `name` itself if it is one; InputError for anything else."""
    if name in TASKS:
        return TASKS[name]
    module, colon, attribute = name.partition(":")
    if colon and module and attribute:
        return name
    raise InputError(f"unknown task {name!r}; {nearest(name, TASKS)} (a class of your own is named module:Class)")


def task_class(name: str) -> type:
    """The class behind a task name. Classes of the user's own may live in the current directory."""
    target, where, expected = task_target(name), f"task {name!r}", "a task class"
    found = load_named(target, where, expected) if name in TASKS else load_own(target, where, expected)
    if not isinstance(found, type) or not all(callable(getattr(found, m, None)) for m in ("problems", "verify")):
        raise InputError(
            f"task {name!r}: expected a class with problems() and verify(problem, response) (see reasonloop.tasks.Task)"
        )
    return found


def load_task(name: str, options: dict[str, Any] | None = None) -> Task:
    """The task, constructed with its options. Raises InputError for an unknown name, key or value.

    Files are read later, by problems() (see `task_problems`).
    """
    options = dict(options or {})
    cls = task_class(name)
    model = getattr(cls, "Options", None)
    if name not in TASKS and isinstance(model, type) and issubclass(model, BaseModel):
        validated(model, options, f"task {name!r}")
    try:
        return cast(Task, cls(**options))
    except InputError:
        raise
    except Exception as error:  # whatever a class of the user's own raises
        raise InputError(f"task {name!r}: its options {options} were refused ({crash(error).detail})") from None


def parse_task_spec(spec: str) -> tuple[str, dict[str, Any]]:
    """Reads TASK of the command line: a name, `module:Class`, or a file, folder or Hugging Face data set of problems, each
    with `?key=value&key=value`.

    Values are read as JSON where they are JSON and as text elsewhere; the problems of a file are test problems.
    """
    name, _, query = spec.partition("?")
    options: dict[str, Any] = {}
    for item in query.split("&") if query else []:
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise InputError(f"task {spec!r}: {item!r} is no option; expected name?key=value&key=value")
        if key in options:
            raise InputError(f"task {spec!r}: {key!r} is given twice")
        try:
            options[key] = json.loads(text)
        except (ValueError, RecursionError):
            options[key] = text
    if not name:
        raise InputError(f"task {spec!r}: expected a name, a file or module:Class in front of the options")
    if name not in TASKS and is_source(name):
        return "jsonl", {"test": name, **options}
    return name, options
