"""What `reasonloop tasks list | show | check` print."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from reasonloop.config.section import literals
from reasonloop.errors import InputError
from reasonloop.records import Problem, Verdict
from reasonloop.tasks.base import ALL_SPLITS, DEMONSTRATIONS, demonstrations, gold_response, quick_judgement
from reasonloop.tasks.checks import check_task, task_problems
from reasonloop.tasks.files import row_name
from reasonloop.tasks.registry import TASKS, load_task, parse_task_spec, task_class, task_target
from reasonloop.tasks.report import report_lines
from reasonloop.verify.answers import one_line

if TYPE_CHECKING:
    from rich.console import Console

    from reasonloop.verify.workers import VerifierPool


def list_tasks(spec: str | None = None) -> None:
    """Prints every registered task with the names of its options; or of one task what each option does, its default and the
    values that it may have."""
    console = _console()
    if spec is not None:
        _print_options(console, parse_task_spec(spec)[0])
        return
    named: dict[type, str] = {}
    for name in TASKS:
        cls = task_class(name)
        first = named.setdefault(cls, name)
        about = (cls.__doc__ or "").splitlines()[0] if first == name else f"The same as {first}."
        console.print(name, style="bold", end="  ", soft_wrap=True)
        console.print(about, soft_wrap=True)
        if first == name:
            options = ", ".join(dict.fromkeys(key for model in _option_models(cls) for key in model.model_fields))
            console.print(_indented(f"options: {options}", 4, console.width), style="dim", soft_wrap=True)
    console.print()
    for line in (
        "`reasonloop tasks list NAME` says what each option does, and which values it takes.",
        "A class of your own: module:Class. Problems of your own: a file, a folder, or hf:owner/name.",
        "Options: NAME?key=value&key=value.",
    ):
        console.print(line, soft_wrap=True)


def _print_options(console: Console, name: str) -> None:
    cls = task_class(name)
    console.print(name, style="bold", soft_wrap=True)
    console.print(_indented(" ".join((cls.__doc__ or "").split()), 2, console.width), soft_wrap=True)
    for model in _option_models(cls):
        if model.__name__ == "DemonstrationOptions":
            console.print("\nOf its demonstrations (sft.options.KEY in a recipe):")
        for key, info in model.model_fields.items():
            default = json.dumps(info.get_default(call_default_factory=True))
            values = [json.dumps(value) for value in literals(info.annotation)]
            console.print(f"\n  {key} = {default}" if len(default) < 60 else f"\n  {key}", style="bold", soft_wrap=True)
            about = " ".join((info.description or "").split())
            for line in [about] + ([f"One of {', '.join(values)}."] if values else []):
                console.print(_indented(line, 6, console.width), soft_wrap=True)


def _indented(text: str, by: int, width: int) -> str:
    return textwrap.indent(textwrap.fill(text, max(20, min(width, 120) - by)), " " * by)


def _option_models(cls: type) -> Iterator[type[BaseModel]]:
    for title in ("Options", "DemonstrationOptions"):
        model = getattr(cls, title, None)
        if isinstance(model, type) and issubclass(model, BaseModel):
            yield model


def show_task(
    name: str, options: dict[str, Any], n: int = 5, asked: Callable[[Problem], str] | None = None
) -> Sequence[Problem]:
    """Prints the sizes of the splits, `n` problems with their gold responses, and two demonstrations. Returns all problems.

    `asked`: a problem's prompt as a model gets it; without it chat messages are printed as they are, and that is said.
    """
    task = load_task(name, options)
    problems = task_problems(task, name)
    console = _console()
    for line in report_lines(task):
        console.print(line, soft_wrap=True)
    console.print(f"{name}: {_sizes(problems)}")
    several = len({problem.split for problem in problems}) > 1
    for problem in problems[:n]:
        console.rule(f"{problem.id} ({problem.split})" if several else problem.id, align="left")
        console.print(problem.text if asked is None else asked(problem))
        console.print(f"answer   {one_line(problem.answer, 200)}")
        gold = gold_response(task, problem) if problem.split != DEMONSTRATIONS else None
        if gold is not None:
            judgement = quick_judgement(task, problem, gold)
            console.print(f"gold     {gold}" + (f"  [{judgement.verdict}]" if judgement else ""))
    for problem, response in demonstrations(task, min(n, 2), seed=0) if n else ():
        console.rule(f"demonstration for {problem.id}", align="left")
        console.print(f"{problem.text} {response}" if problem.messages is None else response)
    if asked is None and any(problem.messages is not None for problem in problems[:n]):
        console.print("\nThese are chat messages: --model MODEL shows them as its chat template lays them out.")
    return problems


def _sizes(problems: Sequence[Problem]) -> str:
    """ "200 train, 40 test", or of a single split "240 problems": a file's own name says what it is for."""
    sizes = Counter(problem.split for problem in problems)
    if len(sizes) == 1:
        return f"{len(problems)} problem{'' if len(problems) == 1 else 's'}"
    return ", ".join(f"{sizes[split]} {split}" for split in ALL_SPLITS if sizes[split])


def check(name: str, options: dict[str, Any], *, deadline: float = 5.0, workers: int = 1) -> None:
    """Verifies every gold answer against itself and prints what came out; InputError if any is not right."""
    task = load_task(name, options)
    problems = [problem for problem in task_problems(task, name) if problem.split != DEMONSTRATIONS]
    console = _console()
    for line in report_lines(task):
        console.print(line, soft_wrap=True)
    with verifier_pool(name, options, deadline, workers) as pool:
        failed = check_task(task, problems, pool)
    verdicts = Counter(judgement.verdict for _, judgement in failed)
    verdicts[Verdict.RIGHT] = len(problems) - len(failed)
    told = ", ".join(f"{n} {verdict}" for verdict, n in verdicts.items() if n)
    console.print(f"{name}: {len(problems)} gold answers: {told}")
    for problem, judgement in failed[:20]:
        answer = one_line(problem.answer, 200)
        console.print(f"  {row_name(problem)}: {answer!r} is {judgement.verdict}: {judgement.detail}")
    if failed:
        raise InputError(
            f"task {name!r}: {len(failed)} of {len(problems)} gold answers do not verify as right; first: "
            f"{row_name(failed[0][0])} is {failed[0][1].verdict}"
            + (f" ({one_line(failed[0][1].detail, 200)})" if failed[0][1].detail else "")
        )


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, markup=False)


def verifier_pool(name: str, options: dict[str, Any], deadline: float, workers: int) -> VerifierPool:
    """Killable worker processes that each hold the task `name`; close it, or use it as a context manager."""
    from reasonloop.verify.workers import VerifierPool, VerifierSpec

    return VerifierPool(VerifierSpec(target=task_target(name), options=options), deadline=deadline, workers=workers)
