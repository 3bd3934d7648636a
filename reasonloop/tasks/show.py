"""What `reasonloop tasks list | show | check` print."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from reasonloop.errors import InputError
from reasonloop.records import Problem, Verdict
from reasonloop.tasks.base import ALL_SPLITS, DEMONSTRATIONS, demonstrations, gold_response, quick_judgement
from reasonloop.tasks.gold import check_task, row_name
from reasonloop.tasks.problems import task_problems
from reasonloop.tasks.registry import TASKS, load_task, task_class, task_target

if TYPE_CHECKING:
    from reasonloop.verify.workers import VerifierPool


def list_tasks() -> None:
    """Prints every registered task with its options, their defaults and meaning."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for name in TASKS:
        cls = task_class(name)
        console.print(f"[bold]{name}[/bold]  {(cls.__doc__ or '').splitlines()[0]}", highlight=False)
        table = Table(box=None, padding=(0, 2, 0, 2), show_header=False)
        for title, model in (("Options", ""), ("DemonstrationOptions", "demonstrations: ")):
            for key, info in getattr(getattr(cls, title, None), "model_fields", {}).items():
                default = json.dumps(info.default)
                default = default if len(default) <= 24 else default[:21] + "..."
                table.add_row(f"{model}{key}", default, _plain(info.description or ""))
        console.print(table)
        console.print()
    console.print("A class of your own: module:Class. A problem file: FILE.jsonl. Options: NAME?key=value&key=value.")


def show_task(name: str, options: dict[str, Any], n: int = 5) -> None:
    """Prints the sizes of the splits, `n` problems with their gold responses, and two demonstrations."""
    from rich.console import Console

    task = load_task(name, options)
    problems = task_problems(task, name)
    console = Console(highlight=False)
    sizes = Counter(problem.split for problem in problems)
    console.print(f"{name}: " + ", ".join(f"{sizes[split]} {split}" for split in ALL_SPLITS if sizes[split]))
    for problem in problems[:n]:
        console.rule(_plain(f"{problem.id} ({problem.split})"), align="left")
        console.print(_plain(_prompt(problem)))
        console.print(f"[dim]answer[/dim]   {_plain(_short(problem.answer))}")
        gold = gold_response(task, problem)
        if gold is not None:
            judgement = quick_judgement(task, problem, gold)
            console.print(
                f"[dim]gold[/dim]     {_plain(gold)}" + (f"  [{judgement.verdict.value}]" if judgement else "")
            )
    for problem, response in demonstrations(task, min(n, 2), seed=0) if n else ():
        console.rule(_plain(f"demonstration for {problem.id}"), align="left")
        console.print(_plain(f"{_prompt(problem)} {response}" if problem.messages is None else response))


def check(name: str, options: dict[str, Any], *, deadline: float = 5.0, workers: int = 1) -> None:
    """Verifies every gold answer against itself and prints what came out; InputError if any is not right."""
    from rich.console import Console

    console = Console(highlight=False)
    task = load_task(name, options)
    problems = [problem for problem in task_problems(task, name) if problem.split != DEMONSTRATIONS]
    with verifier_pool(name, options, deadline, workers) as pool:
        failed = check_task(task, problems, pool)
    verdicts = Counter(judgement.verdict for _, judgement in failed)
    verdicts[Verdict.RIGHT] = len(problems) - len(failed)
    console.print(
        f"{name}: {len(problems)} gold answers: " + ", ".join(f"{n} {verdict}" for verdict, n in verdicts.items() if n)
    )
    for problem, judgement in failed[:20]:
        console.print(
            _plain(f"  {row_name(problem)}: {_short(problem.answer)!r} is {judgement.verdict}: {judgement.detail}")
        )
    if failed:
        raise InputError(
            f"task {name!r}: {len(failed)} of {len(problems)} gold answers do not verify as right; first: "
            f"{row_name(failed[0][0])}"
        )


def verifier_pool(name: str, options: dict[str, Any], deadline: float, workers: int) -> VerifierPool:
    """Killable worker processes that each hold the task `name`; close it, or use it as a context manager."""
    from reasonloop.verify.workers import VerifierPool, VerifierSpec

    return VerifierPool(VerifierSpec(target=task_target(name), options=options), deadline=deadline, workers=workers)


def _prompt(problem: Problem) -> str:
    if problem.messages is None:
        return problem.prompt or ""
    return "\n".join(f"{message['role']}: {message['content']}" for message in problem.messages)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _short(answer: str) -> str:
    """A code problem's answer is all of its tests, as much as 190 KB."""
    return answer if len(answer) <= 200 else answer[:200] + "..."
