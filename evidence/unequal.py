"""Arms of two studies side by side at unequal rollouts, which `reasonloop compare` refuses, on the seeds that both have.

    python evidence/unequal.py evidence/rloop-room-time runs/study-rloop-room-time evidence/rloop-room runs/study-rloop-room

Both are on the same problems. FOLDER/against.json has each arm of the second study against each of the first, as in
results.json, and what every arm spent.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from reasonloop.compare.arms import Arms, read_arms
from reasonloop.compare.study import compare_arms, results
from reasonloop.study import arguments_of, load_study, unpack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("folder", "runs", "other", "other_runs"):
        parser.add_argument(name, type=Path)
    arguments = parser.parse_args()
    places = ((arguments.folder, arguments.runs), (arguments.other, arguments.other_runs))
    studies = [load_study(folder) for folder, _ in places]
    seeds = tuple(sorted(set.intersection(*(set(study.seeds) for study in studies))))
    found = []
    for study, (_, runs) in zip(studies, places, strict=True):
        unpack(study, runs)
        found.append(read_arms(arguments_of(replace(study, seeds=seeds), runs)))
    first, second = found
    if first.arms[0].entries[0].ids != second.arms[0].entries[0].ids:
        parser.error("the two studies have other held-out problems")
    own = [arm for arm in first.arms if arm.trained]
    names, both = {arm.name for arm in own}, Arms([*second.arms, *own], first.machine, first.versions)
    whole = results(
        both, [pair for pair in compare_arms(both.arms) if (pair.a.name in names) != (pair.b.name in names)]
    )
    (arguments.folder / "against.json").write_text(json.dumps(whole, indent=1) + "\n")
    for row in whole["comparisons"]:
        lo, hi = row["ci95"]
        print(f"{row['a']} - {row['b']}: {row['metric']:8} {row['relative']:+.1%} [{lo:+.1%}, {hi:+.1%}]")


if __name__ == "__main__":
    main()
