"""What `reasonloop tasks list | show | check` print."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from reasonloop.errors import InputError
from reasonloop.records import Verdict
from reasonloop.tasks.base import ALL_SPLITS, DEMONSTRATIONS, demonstrations, gold_response, quick_judgement
from reasonloop.tasks.checks import check_task, task_problems
from reasonloop.tasks.files import row_name
from reasonloop.tasks.registry import TASKS, load_task, task_class, task_target
from reasonloop.tasks.report import report_lines
from reasonloop.verify.answers import one_line

if TYPE_CHECKING:
    from rich.console import Console

    from reasonloop.verify.workers import VerifierPool


def list_tasks() -> None:
    """Prints every registered task with its options, their defaults and meaning."""
    from rich.table import Table

    console = _console()
    named: dict[type, str] = {}
    for name in TASKS:
        cls = task_class(name)
        console.print(name, style="bold", end="  ")
        if named.setdefault(cls, name) != name:
            console.print(f"The same as {named[cls]}.\n")
            continue
        console.print((cls.__doc__ or "").splitlines()[0])
        table = Table(box=None, padding=(0, 2, 0, 2), show_header=False)
        for title, model in (("Options", ""), ("DemonstrationOptions", "demonstrations: ")):
            for key, info in getattr(getattr(cls, title, None), "model_fields", {}).items():
                table.add_row(f"{model}{key}", one_line(json.dumps(info.default), 24), info.description or "")
        console.print(table)
        console.print()
    console.print("A class of your own: module:Class. Problems of your own: a file, a folder, or hf:owner/name.")
    console.print("Options: NAME?key=value&key=value.")


def show_task(name: str, options: dict[str, Any], n: int = 5) -> None:
    """Prints the sizes of the splits, `n` problems with their gold responses, and two demonstrations."""
    task = load_task(name, options)
    problems = task_problems(task, name)
    console = _console()
    for line in report_lines(task):
        console.print(line, soft_wrap=True)
    sizes = Counter(problem.split for problem in problems)
    console.print(f"{name}: " + ", ".join(f"{sizes[split]} {split}" for split in ALL_SPLITS if sizes[split]))
    for problem in problems[:n]:
        console.rule(f"{problem.id} ({problem.split})", align="left")
        console.print(problem.text)
        console.print(f"answer   {one_line(problem.answer, 200)}")
        gold = gold_response(task, problem) if problem.split != DEMONSTRATIONS else None
        if gold is not None:
            judgement = quick_judgement(task, problem, gold)
            console.print(f"gold     {gold}" + (f"  [{judgement.verdict}]" if judgement else ""))
    for problem, response in demonstrations(task, min(n, 2), seed=0) if n else ():
        console.rule(f"demonstration for {problem.id}", align="left")
        console.print(f"{problem.text} {response}" if problem.messages is None else response)


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
            f"{row_name(failed[0][0])}"
        )


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, markup=False)


def verifier_pool(name: str, options: dict[str, Any], deadline: float, workers: int) -> VerifierPool:
    """Killable worker processes that each hold the task `name`; close it, or use it as a context manager."""
    from reasonloop.verify.workers import VerifierPool, VerifierSpec

    return VerifierPool(VerifierSpec(target=task_target(name), options=options), deadline=deadline, workers=workers)
