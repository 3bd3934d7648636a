"""What explorations find: python evidence/explorers.py RUNS --against raft --out evidence/curves/explorers.json

RUNS: the folder of a study's runs, rollouts and all. Of each run's first iteration, in which all arms start from the same
policy: problems met, problems with a right rollout, distinct right rollouts; and against the arm of that name, at equal
seeds and rollouts, problems that both have met and only one of them has solved.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

import duckdb

FOUND = """
SELECT problem_id, count(*) FILTER (verdict = 'right') AS solved,
    count(DISTINCT (response_hash_hi, response_hash_lo)) FILTER (verdict = 'right') AS unlike, count(*) AS tries
FROM read_parquet($1) WHERE iteration = 0 AND branch NOT IN ('vanilla', 'greedy') GROUP BY problem_id
"""


def first_iteration(run: Path) -> dict[str, tuple[int, int, int]]:
    """By problem: right rollouts, distinct ones, tries."""
    files = str(run / "trajectories" / "*.parquet")
    return {name: (solved, unlike, tries) for name, solved, unlike, tries in duckdb.execute(FOUND, [files]).fetchall()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--against", default="raft")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    found: dict[str, dict[int, dict[str, tuple[int, int, int]]]] = defaultdict(dict)
    for run in sorted(arguments.runs.iterdir()):
        if (named := re.fullmatch(r"(.+)-(\d+)", run.name)) and (run / "trajectories").is_dir():
            found[named[1]][int(named[2])] = first_iteration(run)
    rows: dict[str, Any] = {}
    for arm, seeds in found.items():
        rows[arm] = {
            "seeds": sorted(seeds),
            "rollouts": [sum(tries for *_, tries in own.values()) for own in seeds.values()],
            "met": [len(own) for own in seeds.values()],
            "solved": [sum(solved > 0 for solved, *_ in own.values()) for own in seeds.values()],
            "distinct": [sum(unlike for _, unlike, _ in own.values()) for own in seeds.values()],
        }
        other = found[arguments.against]
        common = [seed for seed in seeds if seed in other]
        rows[arm]["only_here"] = [
            sum(solved > 0 and name in other[s] and not other[s][name][0] for name, (solved, *_) in seeds[s].items())
            for s in common
        ]
        rows[arm]["only_there"] = [
            sum(o > 0 and name in seeds[s] and not seeds[s][name][0] for name, (o, *_) in other[s].items())
            for s in common
        ]
        means = {key: round(fmean(values), 1) for key, values in rows[arm].items() if values and key != "seeds"}
        print(arm, means)
    arguments.out.write_text(
        json.dumps({"against": arguments.against, "arms": rows}, indent=1) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
