"""Verification: verdicts/s against plain math-verify, on GSM8K's answers.

    python benchmarks/verify.py --data path/to/gsm8k/test.jsonl

Each problem is judged on two responses: its own worked solution (right) and the next problem's (wrong, but for the few
with the same answer). Ours is a verifier pool with one worker, as runs use it: extraction, exact and numeric comparison,
then math-verify in the killable worker where that is needed. The peer calls `math_verify.parse` and `verify` on the same
texts in a loop, gold answers parsed once each. Seconds are of judging all of them; the worker's start is in the warm-up.
Disagreements are counted and listed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pairs import alternate, paired, parser, write

from reasonloop import bench, compute
from reasonloop.errors import InputError
from reasonloop.records import Problem, Verdict


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


def main() -> None:
    options = parser(__doc__, "verify")
    options.add_argument("--data", type=Path, required=True, help="GSM8K's test.jsonl")
    options.add_argument("--problems", type=int, default=0, help="only the first so many (default: all)")
    args = options.parse_args()
    threads = compute.prepare_threads(args.threads)

    from math_verify import parse, verify

    from reasonloop.verify.workers import VerifierPool, VerifierSpec

    items = items_of(args.data, args.problems)
    right: dict[str, list[bool]] = {}
    with VerifierPool(
        VerifierSpec("reasonloop.verify.verifiers:MathVerifier", {"extract": "final"}), workers=1
    ) as pool:

        def ours() -> None:
            right["ours"] = [judgement.verdict is Verdict.RIGHT for judgement in pool.verify(items)]

        def plain() -> None:
            golds: dict[str, Any] = {}
            found = []
            for problem, response in items:
                if problem.id not in golds:
                    golds[problem.id] = parse(problem.answer)
                found.append(verify(golds[problem.id], parse(response)))
            right["plain"] = found

        seconds = alternate(
            {"ours": lambda turn: bench.timed(ours), "math-verify": lambda turn: bench.timed(plain)}, args.pairs
        )
        sent = pool.sent // (args.pairs + 1)
    differing = [i for i, (a, b) in enumerate(zip(right["ours"], right["plain"], strict=True)) if a != b]
    rates = {name: len(items) / sorted(times)[len(times) // 2] for name, times in seconds.items()}
    workload = {"data": args.data.name, "problems": len(items) // 2, "responses": len(items)}
    more = {
        "verdicts_per_second": rates,
        "judged_by_the_worker": sent,
        "right": {name: sum(verdicts) for name, verdicts in right.items()},
        "disagreements": [
            {"gold": items[i][0].answer, "response_end": items[i][1][-80:], "ours": right["ours"][i]} for i in differing
        ],
    }
    print(
        f"verdicts/s: {', '.join(f'{name} {rate:,.0f}' for name, rate in rates.items())}; {len(differing)} disagreements"
    )
    write(paired(seconds["ours"], seconds["math-verify"], "math-verify, plain", workload, **more), args.out, threads)


if __name__ == "__main__":
    main()
