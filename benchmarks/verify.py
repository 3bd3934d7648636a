"""Verification: verdicts/s against plain math-verify, on GSM8K's answers and on expressions; and accuracy.

    python benchmarks/verify.py --data path/to/gsm8k/test.jsonl [--cases cases.jsonl] [--golds math500.jsonl ...]

With --cases and --golds the verdicts themselves are compared, too (`accuracy.py`). With --before, the folder of another
checkout, its verdicts/s on the whole responses are measured in turn with ours.

Two workloads. GSM8K: each problem is judged on two responses, its own worked solution (right) and the next problem's (wrong,
but for the few with the same answer). Expressions: fractions, roots, pairs and intervals in LaTeX, each judged on another
way to write it and on a wrong one.

Ours is a verifier pool with one worker, as runs use it: extraction and comparison by our own reader, then math-verify in
the killable worker where that is needed. Readings are kept: expressions are others in each round. The
peers call `math_verify.parse` and `verify` in a loop, gold answers parsed once each: "plain" on the whole responses,
"extracted" on the answers that our extraction finds in them. Seconds are of judging all of them; the worker's start is
in the warm-up. Disagreements are counted and listed. The main workload is GSM8K, plain.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from accuracy import cases, rewritten
from pairs import Side, alternate, commit_of, paired, parser, write

from reasonloop.bench import measure as bench
from reasonloop.errors import InputError
from reasonloop.machine.threads import prepare_threads
from reasonloop.records import Problem, Verdict

EXPRESSIONS = 200
Items = Callable[[int], list[tuple[Problem, str]]]
"""The (problem, response) pairs of a round"""


def items_of(file: Path, limit: int) -> list[tuple[Problem, str]]:
    """(problem, response) pairs from JSONL with "question" and "answer" (a solution that ends in "#### answer")."""
    from reasonloop.verify.extract import extract_answer

    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()][: limit or None]
        solutions = [str(row["answer"]) for row in rows]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f'{file}: cannot be read as JSONL with "answer" in every line: {error!r}') from None
    golds = [extract_answer(solution, "hash") or "" for solution in solutions]
    problems = [
        Problem(str(i), row.get("question", ""), answer=gold)
        for i, (row, gold) in enumerate(zip(rows, golds, strict=True))
    ]
    return [
        (problem, solution)
        for i, problem in enumerate(problems)
        for solution in (solutions[i], solutions[(i + 1) % len(solutions)])
    ]


def expressions(count: int, seed: int = 0) -> list[tuple[Problem, str]]:
    """(problem, response) pairs: `count` problems with a right response, written otherwise, and a wrong one."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        a, b, k = (int(number) for number in rng.integers(2, 30, 3))
        gold, other, wrong = [
            (
                rf"\frac{{{a}}}{{{b}}}",
                rf"\frac{{{a * k}}}{{{b * k}}}",
                rf"\frac{{{a + b}}}{{{2 * b}}}" if a != b else "2",
            ),
            (rf"{k}\sqrt{{{a}}}", rf"\sqrt{{{k * k * a}}}", rf"{k + 1}\sqrt{{{a}}}"),
            (rf"({a}, \frac{{{b}}}{{2}})", rf"({a}, {b / 2})", rf"({a + 1}, {b / 2})"),
            (rf"[{-a}, {b})", rf"[{-2 * a}/2, {b})", rf"[{-a}, {b + 1})"),
        ][i % 4]
        problem = Problem(str(i), "", answer=gold)
        found += [(problem, rf"So the answer is $\boxed{{{text}}}$.") for text in (other, wrong)]
    return found


def main() -> None:
    options = parser(__doc__, "verify")
    options.add_argument("--data", type=Path, required=True, help="GSM8K's test.jsonl")
    options.add_argument("--problems", type=int, default=0, help="only the first so many (default: all)")
    options.add_argument("--cases", type=Path, help="JSONL of answers with the verdicts that are expected")
    options.add_argument(
        "--golds", type=Path, nargs="+", default=[], help="files of problems whose golds are rewritten"
    )
    options.add_argument("--before", type=Path, help="folder of another checkout to be measured against")
    options.add_argument("--most", type=int, default=200, help="pairs of each rewriting (default: 200)")
    args = options.parse_args()
    threads = prepare_threads(args.threads)

    solutions = items_of(args.data, args.problems)
    workloads: dict[str, Items] = {
        args.data.name: lambda turn: solutions,
        "expressions": lambda turn: expressions(EXPRESSIONS, turn),
    }
    results = [result for name, items in workloads.items() for result in measure(name, items, args.pairs)]
    before = {"before": against(args.before.resolve(), solutions, args.pairs)} if args.before else {}
    accuracy: dict[str, Any] = {}
    if args.cases:
        accuracy["cases"] = cases(args.cases)
    if args.golds:
        accuracy |= rewritten([*args.golds, args.data], args.most)
    write({**results[0], "workloads": results, **before, "accuracy": accuracy}, args.out, threads)


_SERVE = """
import json, sys, time
from reasonloop.records import Problem
from reasonloop.verify.workers import VerifierPool, VerifierSpec

items = [(Problem(str(i), "", answer=gold), response) for i, (gold, response) in enumerate(json.load(open(sys.argv[1])))]
spec = VerifierSpec("reasonloop.verify.verifiers:MathVerifier", {"extract": "final"})
with VerifierPool(spec, workers=1) as pool:
    for line in sys.stdin:
        began = time.perf_counter()
        for _ in range(int(line)):
            pool.verify(items)
        print(time.perf_counter() - began, flush=True)
"""
REPEATS = 10
"""Of all responses, in a round against another checkout"""


def against(root: Path, items: list[tuple[Problem, str]], pairs: int) -> dict[str, Any]:
    """Seconds of this checkout and of the one in `root`, each in a process of its own."""
    with TemporaryDirectory() as folder, ExitStack() as stack:
        file = Path(folder) / "items.json"
        file.write_text(json.dumps([(problem.answer, response) for problem, response in items]))

        def side(of: Path) -> Side:
            server = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", _SERVE, str(file)],
                    cwd=of,
                    env={**os.environ, "PYTHONPATH": str(of)},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(server.stdin.close)  # type: ignore[union-attr]

            def seconds(turn: int) -> float:
                assert server.stdin is not None
                assert server.stdout is not None
                print(REPEATS, file=server.stdin, flush=True)
                return float(server.stdout.readline())

            return seconds

        found = alternate({"ours": side(Path(__file__).parents[1]), "before": side(root)}, pairs)
    return paired(found["ours"], found["before"], commit_of(root), {"responses": len(items), "times": REPEATS})


def measure(name: str, items_in: Items, pairs: int) -> list[dict[str, Any]]:
    """One workload's result for each peer."""
    from math_verify import parse, verify

    from reasonloop.verify.extract import extract_answer
    from reasonloop.verify.workers import VerifierPool, VerifierSpec

    right: dict[str, list[bool]] = {}
    with VerifierPool(
        VerifierSpec("reasonloop.verify.verifiers:MathVerifier", {"extract": "final"}), workers=1
    ) as pool:

        def ours(turn: int) -> float:
            items = items_in(turn)
            began = time.perf_counter()
            judgements = pool.verify(items)
            took = time.perf_counter() - began
            right["ours"] = [judgement.verdict is Verdict.RIGHT for judgement in judgements]
            return took

        def peer(which: str, texts: list[str], items: list[tuple[Problem, str]]) -> None:
            golds: dict[str, Any] = {}
            found = []
            for (problem, _), text in zip(items, texts, strict=True):
                if problem.id not in golds:
                    golds[problem.id] = parse(f"${problem.answer}$")
                found.append(verify(golds[problem.id], parse(text)))
            right[which] = found

        def plain(turn: int) -> float:
            items = items_in(turn)
            return bench.timed(lambda: peer("plain", [response for _, response in items], items))

        def extracted(turn: int) -> float:
            items = items_in(turn)
            texts = [f"${extract_answer(response, 'final') or ''}$" for _, response in items]
            return bench.timed(lambda: peer("extracted", texts, items))

        sides: dict[str, Side] = {"ours": ours, "plain": plain, "extracted": extracted}
        seconds = alternate(sides, pairs)
        sent = pool.sent // (pairs + 1)
    items = items_in(pairs)
    rates = {side: len(items) / float(np.median(times)) for side, times in seconds.items()}
    results = []
    for which in ("plain", "extracted"):
        differing = [i for i, (a, b) in enumerate(zip(right["ours"], right[which], strict=True)) if a != b]
        more = {
            "verdicts_per_second": rates,
            "judged_by_the_worker": sent,
            "right": {side: sum(verdicts) for side, verdicts in right.items()},
            "disagreements": [
                {"gold": items[i][0].answer, "response_end": items[i][1][-80:], "ours": right["ours"][i]}
                for i in differing
            ],
        }
        workload = {"data": name, "problems": len(items) // 2, "responses": len(items)}
        results.append(paired(seconds["ours"], seconds[which], f"math-verify, {which}", workload, **more))
        print(f"{name}, {which}: {len(differing)} disagreements")
    print(f"verdicts/s: {', '.join(f'{side} {rate:,.0f}' for side, rate in rates.items())}; {sent} by the worker")
    return results


if __name__ == "__main__":
    main()
