"""Do the code tasks tell right from wrong? Canonical solutions must be right, and mutants of them wrong.

    python evidence/code/canonical.py DATA      # DATA holds humaneval/ and mbpp/; writes canonical.json beside this file

For every problem of HumanEval and MBPP (sanitized), and of the bundled task: the canonical solution; the solution with
every `return` value replaced by None, which must never be right; and one mutant each of up to MUTANTS places: a comparison
flipped, a constant off by one, an operator exchanged, a condition negated. Some of these are equivalent to the original
(`<` for `<=` in a loop that can't reach equality): the share that survives is an upper bound for what tests miss. Of
HumanEval+ and MBPP+, whose inputs are large, only the canonical solutions are judged, with a longer deadline.
"""

from __future__ import annotations

import ast
import copy
import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reasonloop.records import Problem, Verdict
from reasonloop.tasks import load_task

MUTANTS = 5
FILES = {
    "humaneval": ("humaneval", "humaneval/HumanEval.jsonl.gz", 10.0),
    "mbpp": ("mbpp", "mbpp/sanitized-mbpp.json", 10.0),
    "humaneval+": ("humaneval", "humaneval/HumanEvalPlus.jsonl.gz", 40.0),
    "mbpp+": ("mbpp", "mbpp/MbppPlus.jsonl.gz", 40.0),
}
COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
}  # fmt: skip


def mutate(node: ast.AST) -> str | None:
    """Change one node in place and name the change; None if it has nothing to change."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        node.ops[0] = COMPARISONS[type(node.ops[0])]()
        return "comparison"
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        node.value += 1
        return "constant"
    if isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in OPERATORS:
        node.op = OPERATORS[type(node.op)]()
        return "operator"
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        node.test = ast.UnaryOp(ast.Not(), node.test)
        return "condition"
    return None


def mutants(source: str, entries: set[str]) -> Iterator[tuple[str, str]]:
    """(kind, program) for up to MUTANTS places, spread over the functions named in `entries`."""
    tree = ast.parse(source)
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and function.name in entries
        for statement in function.body
        for node in ast.walk(statement)
    }
    nodes = enumerate(ast.walk(tree))
    places = [place for place, node in nodes if id(node) in inside and mutate(copy.deepcopy(node)) is not None]
    step = max(1, len(places) / MUTANTS)
    for place in dict.fromkeys(places[int(index * step)] for index in range(min(MUTANTS, len(places)))):
        changed = copy.deepcopy(tree)
        kind = mutate(list(ast.walk(changed))[place])
        yield str(kind), ast.unparse(ast.fix_missing_locations(changed))


class NoReturn(ast.NodeTransformer):
    """Every function whose name is in `entries` returns None at once."""

    def __init__(self, entries: set[str]) -> None:
        self.entries = entries

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        if node.name in self.entries:
            node.body = [ast.Return(ast.Constant(None))]
        return node


def judge(task: Any, problem: Problem, program: str) -> Verdict:
    """The verdict on a whole program, whatever the prompt begins with."""
    return task.verify(problem, f"```python\n{program}\n```").verdict


def study(task: Any, mutated: bool) -> dict[str, Any]:
    problems = task.problems()
    canonical: Counter[str] = Counter()
    kinds: dict[str, Counter[str]] = {}
    failed, survivors, nothing, seconds = [], [], [], []
    for problem in problems:
        start = time.perf_counter()
        found = task.verify(problem, task.gold_response(problem))
        seconds.append(time.perf_counter() - start)
        canonical[found.verdict.value] += 1
        if found.verdict is not Verdict.RIGHT:
            failed.append({"id": problem.id, "verdict": found.verdict.value, "detail": found.detail[:200]})
        if not mutated:
            continue
        source = problem.meta["prefix"] + problem.response if "def " in problem.meta["prefix"] else problem.response
        entries = set(problem.meta["names"])
        if (
            judge(task, problem, ast.unparse(ast.fix_missing_locations(NoReturn(entries).visit(ast.parse(source)))))
            is Verdict.RIGHT
        ):
            nothing.append(problem.id)
        for kind, program in mutants(source, entries):
            verdict = judge(task, problem, program)
            kinds.setdefault(kind, Counter())[verdict.value] += 1
            if verdict is Verdict.RIGHT:
                survivors.append({"id": problem.id, "kind": kind})
    ordered = sorted(seconds)
    row: dict[str, Any] = {
        "problems": len(problems),
        "canonical": dict(canonical),
        "canonical_not_right": failed,
        "seconds": {"median": round(ordered[len(ordered) // 2], 4), "largest": round(ordered[-1], 3)},
    }
    if mutated:
        total = sum(sum(counter.values()) for counter in kinds.values())
        row["return_none_right"] = nothing
        row["mutants"] = total
        row["killed"] = total - len(survivors)
        row["mutation_score"] = round(1 - len(survivors) / total, 4)
        row["by_kind"] = {kind: dict(counter) for kind, counter in sorted(kinds.items())}
        row["survivors"] = survivors
    return row


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    data, only = Path(sys.argv[1]), sys.argv[2:]
    target = Path(__file__).with_suffix(".json")
    results = json.loads(target.read_text())["results"] if only and target.exists() else {}
    names = only or ["bundled", *FILES]
    for name in names:
        start = time.perf_counter()
        if name == "bundled":
            task = load_task("code", {"timeout": 10.0})
        else:
            kind, path, timeout = FILES[name]
            task = load_task(kind, {"test": str(data / path), "timeout": timeout})
        results[name] = study(task, mutated=not name.endswith("+"))
        results[name]["total_seconds"] = round(time.perf_counter() - start, 1)
        shown = {key: value for key, value in results[name].items() if key not in ("survivors", "by_kind")}
        print(name, json.dumps(shown), flush=True)
        target.write_text(
            json.dumps(
                {
                    "machine": {"cpus": os.cpu_count(), "system": platform.system(), "kernel": platform.release()},
                    "versions": {"python": platform.python_version()},
                    "results": results,
                },
                indent=1,
            )
            + "\n"
        )


if __name__ == "__main__":
    main()
