"""What digests, and the order in which things reach the disk, cost a step: the share of a run's seconds, in one run.

    python benchmarks/faults/cost.py --out benchmarks/results/digests.json

The bundled model, vanilla RL, a checkpoint after each step. `ledger`: lines of digests.jsonl, and what is synced before;
`hashing`: the digests of what is written; `other fsync`: what was synced before there were digests.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reasonloop.bench.result import machine_and_versions, write
from reasonloop.cli import main
from reasonloop.written import ledger

OPTIONS = (
    "method=rl",
    "sft.before=false",
    "checkpoint_seconds=0",
    "eval.samples=1",
    "eval.problems=16",
    "rl.probe_every=0",
)


def measured(steps: int) -> dict[str, Any]:
    spent: dict[str, float] = defaultdict(float)
    inside: list[str] = []

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            inside.append(name)
            began = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                inside.pop()
                if not inside:
                    spent[name] += time.perf_counter() - began

        return call

    for name in ("put", "_done"):
        setattr(ledger.Ledger, name, timed("ledger", getattr(ledger.Ledger, name)))
    for name in ("of_file", "of_bytes", "of_segment"):
        setattr(ledger, name, timed("hashing", getattr(ledger, name)))
    os.fsync = timed("other fsync", os.fsync)  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        code = main(["run", "quickstart", *OPTIONS, f"rl.steps={steps}", "--out", str(Path(folder) / "run")])
        assert code == 0
        whole = time.perf_counter() - began
    new = spent["ledger"] + spent["hashing"]
    return {"steps": steps, "seconds": whole, **spent, "ratio": whole / (whole - new), "ms_a_step": 1000 * new / steps}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    result = measured(given.steps)
    print(result)
    if given.out:
        machine, versions = machine_and_versions(1)
        about = {
            "machine": machine,
            "versions": versions,
            "pairs": [],
            "median_ratio": result["ratio"],
            "peer": "without",
        }
        write({**about, "workload": {"steps": given.steps, "options": OPTIONS}, "measured": result}, given.out)
