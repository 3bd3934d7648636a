"""Whole RL steps of this checkout against another one's, on the same recipes: what newer features cost who doesn't use them.

    git worktree add ../before d46adb2
    python benchmarks/before.py --before ../before

The checkouts take turns, each in processes of its own; a round is the steps of one run, the first step left out. The steps
do the same work if nothing has changed: "same" says whether all metrics that both write, but the times, are equal.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from pairs import Side, alternate, commit_of, note, paired, parser, write

from reasonloop.machine.threads import prepare_threads

ROOT = Path(__file__).parents[1]
TIMES = ("seconds", "sampling_seconds", "tokens_per_second")
RECIPES = {"quickstart": ("quickstart", 16), "SmolLM2": ("evidence/rloop-smollm2/recipe.toml", 4)}
"""Recipe and steps of a round"""


def steps(of: Path, recipe: str, count: int, threads: int) -> tuple[float, list[dict[str, Any]]]:
    """Seconds of all steps but the first, and what the steps' metrics say besides times."""
    named = str(ROOT / recipe) if recipe.endswith(".toml") else recipe
    with tempfile.TemporaryDirectory() as folder:
        options = ["method=rl", f"rl.steps={count + 1}", f"threads={threads}", "eval.samples=1", "eval.explored=false"]
        done = subprocess.run(
            [sys.executable, "-m", "reasonloop", "run", named, "--out", f"{folder}/run", *options],
            cwd=of,
            env={**os.environ, "PYTHONPATH": str(of)},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SystemExit(f"{of}: {done.stderr[-2000:]}")
        lines = [json.loads(line) for line in Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
    found = [line for line in lines if "sampling_seconds" in line]
    told = [{name: value for name, value in line.items() if name not in TIMES} for line in found]
    return sum(line["seconds"] for line in found[1:]), told


def measure(name: str, before: Path, pairs: int, threads: int) -> dict[str, Any]:
    recipe, count = RECIPES[name]
    told: dict[Path, list[dict[str, Any]]] = {}

    def side(of: Path) -> Side:
        def seconds(turn: int) -> float:
            took, told[of] = steps(of, recipe, count, threads)
            return took

        return seconds

    note(f"{name}:")
    found = alternate({"ours": side(ROOT), "before": side(before)}, pairs, note)
    workload = {"name": name, "recipe": recipe, "steps": count}
    both = list(zip(told[ROOT], told[before], strict=True))
    same = all(ours[name] == theirs[name] for ours, theirs in both for name in ours.keys() & theirs.keys())
    return paired(found["ours"], found["before"], commit_of(before), workload, same=same)


def main() -> None:
    options = parser(__doc__, "before")
    options.add_argument("--before", type=Path, required=True, help="folder of another checkout to be measured against")
    options.add_argument("--only", nargs="+", choices=tuple(RECIPES), default=list(RECIPES))
    args = options.parse_args()
    threads = prepare_threads(args.threads)
    results = [measure(name, args.before.resolve(), args.pairs, threads) for name in args.only]
    write({**results[0], "workloads": results}, args.out, threads)


if __name__ == "__main__":
    main()
