"""A study's comparisons on the problems that earlier runs had been evaluated on, and on the others.

    python evidence/subsets.py evidence/rloop-confirm runs/study-rloop-confirm --seen evidence/rloop-wide/recipe.toml ...

A recipe is tuned by looking at results: where some of the held-out problems had been looked at while it was, the others tell
whether that flattered it. `--seen` names the recipes whose test problems had been looked at. FOLDER/subsets.json has every
arm against every other on "seen" and "unseen" problems, as in results.json; RLoop's are printed.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from reasonloop import config
from reasonloop.compare.arms import Arms, ComparedArm, read_arms
from reasonloop.compare.study import compare_arms, results
from reasonloop.study import arguments_of, load_study, unpack
from reasonloop.tasks import load_task, task_problems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--seen", type=Path, nargs="+", required=True)
    arguments = parser.parse_args()
    study = load_study(arguments.folder)
    unpack(study, arguments.runs)
    found = read_arms(arguments_of(study, arguments.runs))
    seen = {name for recipe in arguments.seen for name in test_problems(recipe)}
    ids = found.arms[0].entries[0].ids
    out = {}
    for name, chosen in (("seen", [i in seen for i in ids]), ("unseen", [i not in seen for i in ids])):
        arms = Arms([only(arm, chosen) for arm in found.arms], found.machine, found.versions)
        part = results(arms, compare_arms(arms.arms))
        out[name] = {"problems": sum(chosen), **part}
        print(f"{name}: {sum(chosen)} problems")
        for row in part["comparisons"]:
            if row["a"] == "rloop":
                lo, hi = row["ci95"]
                ahead = sum(pair["a"] > pair["b"] for pair in row["pairs"])
                print(
                    f"  {row['metric']:8} against {row['b']:24} {row['relative']:+.1%} [{lo:+.1%}, {hi:+.1%}], "
                    f"{ahead} of {len(row['pairs'])} seeds"
                )
    (arguments.folder / "subsets.json").write_text(json.dumps(out, indent=1) + "\n")


def test_problems(recipe: Path) -> list[str]:
    task = config.load(recipe).task
    problems = task_problems(load_task(task.name, task.options), task.name)
    return [problem.id for problem in problems if problem.split == "test"]


def only(arm: ComparedArm, chosen: list[bool]) -> ComparedArm:
    """The arm on the chosen ones of its problems."""
    mask = np.array(chosen)
    entries = [
        replace(
            entry,
            ids=tuple(i for i, kept in zip(entry.ids, chosen, strict=True) if kept),
            correct_P=entry.correct_P[mask],
        )
        for entry in arm.entries
    ]
    return replace(arm, entries=tuple(entries))


if __name__ == "__main__":
    main()
