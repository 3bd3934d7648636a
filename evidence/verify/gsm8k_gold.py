"""Every GSM8K gold answer against itself, through the worker pool; timed against math-verify called directly.

    python evidence/verify/gsm8k_gold.py FOLDER      # FOLDER holds GSM8K's train.jsonl and test.jsonl

Writes gsm8k_gold.json beside this file. Three timings, in one process, one after the other:

- pool: all gold answers through VerifierPool + MathVerifier, as `reasonloop tasks check` does (plain numbers are
  settled by the fast path, before any worker; the start of workers would count);
- workers: all of them with the fast path off, so that each goes to a worker and through math-verify: what the slow
  path says and costs, the start of the workers apart;
- direct: a random sample of 300 with math-verify alone, in this process, as its documentation calls it (its time-outs
  on). The ratios are of seconds per answer to this.
"""

from __future__ import annotations

import json
import os
import platform
import random
import sys
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path

from reasonloop.records import Judgement, Problem
from reasonloop.tasks import check_task
from reasonloop.verify.answers import prepare_symbolic, symbolic
from reasonloop.verify.extract import gold_answer
from reasonloop.verify.verifiers import MathVerifier
from reasonloop.verify.workers import VerifierPool, VerifierSpec

SAMPLE = 300
SEED = 0


class SlowPath(MathVerifier):
    """MathVerifier without its fast path."""

    quick = None  # type: ignore[assignment]

    def verify(self, problem: Problem, response: str) -> Judgement:
        answer = self._extracted(response)
        return answer if isinstance(answer, Judgement) else symbolic(answer, problem.answer)


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def load(folder: Path) -> list[Problem]:
    problems = []
    for name in ("train", "test"):
        for number, line in enumerate((folder / f"{name}.jsonl").read_text().splitlines(), start=1):
            row = json.loads(line)
            problems.append(Problem(f"{name}/{number}", prompt=row["question"], answer=gold_answer(row["answer"])))
    return problems


def time_direct(answers: list[str]) -> tuple[float, int]:
    """(seconds, right ones) of math-verify alone, called as its documentation does."""
    from math_verify import parse, verify

    start = time.perf_counter()
    right = sum(verify(parse(f"\\boxed{{{answer}}}"), parse(f"\\boxed{{{answer}}}")) for answer in answers)
    return time.perf_counter() - start, right


def main() -> None:
    problems = load(Path(sys.argv[1]))
    start = time.perf_counter()
    with VerifierPool(VerifierSpec("reasonloop.verify.verifiers:MathVerifier"), workers=2) as pool:
        failed = check_task(pool.verifier, problems, pool)
        pool_seconds = time.perf_counter() - start
        sent = pool.sent
    verdicts = Counter({"right": len(problems) - len(failed)})
    verdicts.update(judgement.verdict.value for _, judgement in failed)

    sample = random.Random(SEED).sample(problems, SAMPLE)
    with VerifierPool(VerifierSpec("gsm8k_gold:SlowPath"), workers=2) as pool:
        check_task(pool.verifier, sample[:8], pool)  # the workers are up from here on
        start = time.perf_counter()
        slow_failed = check_task(pool.verifier, problems, pool)
        worker_seconds = time.perf_counter() - start

    prepare_symbolic()
    direct_seconds, direct_right = time_direct([problem.answer for problem in sample])
    per_pool, per_worker = pool_seconds / len(problems), worker_seconds / len(problems)
    per_direct = direct_seconds / SAMPLE
    result = {
        "machine": {"cpu": cpu_model(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("math-verify", "latex2sympy2_extended", "sympy")},
        "gold_answers": len(problems),
        "verdicts": dict(verdicts),
        "failed": [{"id": problem.id, "answer": problem.answer} for problem, _ in failed],
        "pool": {
            "seconds": round(pool_seconds, 3),
            "ms_per_answer": round(1000 * per_pool, 4),
            "sent_to_workers": sent,
        },
        "workers": {
            "seconds": round(worker_seconds, 3),
            "ms_per_answer": round(1000 * per_worker, 4),
            "right": len(problems) - len(slow_failed),
            "workers": 2,
        },
        "direct": {
            "sample": SAMPLE,
            "seed": SEED,
            "seconds": round(direct_seconds, 3),
            "ms_per_answer": round(1000 * per_direct, 4),
            "right": direct_right,
        },
        "seconds_per_answer_pool_over_direct": round(per_pool / per_direct, 5),
        "seconds_per_answer_workers_over_direct": round(per_worker / per_direct, 3),
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
