"""How a study's policies fail: cut off before an answer, given up, or wrong.

    python evidence/finishing.py evidence/rloop-confirm runs/study-rloop-confirm

From the evaluations of the finished runs; means over seeds, in FOLDER/finishing.json: the share of responses that are
right, wrong (a whole answer that isn't), and without an answer; those cut off at the token limit; and the right ones' share
among those that were not cut off. Also each seed's seconds of training up to that policy.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

from reasonloop.compare.policies import read_finished
from reasonloop.study import arguments_of, load_study, unpack

SHARES = ("right", "wrong", "no_answer", "cut_off", "right_of_finished")


def shares(evaluation: dict[str, Any]) -> dict[str, float]:
    verdicts = evaluation["verdicts"]
    total = sum(verdicts.values())
    right, wrong = verdicts.get("right", 0) / total, verdicts.get("wrong", 0) / total
    finished = 1 - evaluation["cut_off"]
    return dict(
        zip(
            SHARES,
            (right, wrong, 1 - right - wrong, evaluation["cut_off"], right / finished if finished else 0.0),
            strict=True,
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("runs", type=Path)
    arguments = parser.parse_args()
    study = load_study(arguments.folder)
    unpack(study, arguments.runs)
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    seconds: dict[str, list[float]] = defaultdict(list)
    for argument in arguments_of(study, arguments.runs):
        arm, _, folder = argument.partition("=")
        products = {}
        evaluations = read_finished(Path(folder)).results  # in the order in which they were made
        stopped = "vanilla" if any(evaluation["branch"] == "vanilla" for evaluation in evaluations) else arm
        for evaluation in evaluations:
            kind = {"vanilla": "vanilla", "early": f"{stopped} early-stopped"}.get(evaluation["branch"])
            products["base" if evaluation["stage"] == "base" else kind or arm] = evaluation
        for name, evaluation in products.items():
            found[name].append(shares(evaluation))
            seconds[name].append(evaluation["seconds"])
    means = {
        arm: {"seeds": len(rows), "training_seconds": seconds[arm]} | {k: fmean(row[k] for row in rows) for k in SHARES}
        for arm, rows in found.items()
    }
    (arguments.folder / "finishing.json").write_text(json.dumps({"arms": means}, indent=1) + "\n")
    for arm, row in means.items():
        print(arm.ljust(24), "  ".join(f"{k} {row[k]:.3f}" for k in SHARES))


if __name__ == "__main__":
    main()
