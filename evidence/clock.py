"""How long the arms of a study train, and how long they would if each of the explorations side by side had a machine.

    python evidence/clock.py branches

Reads evidence/STUDY/finished, writes evidence/STUDY/clock.json: seconds of each run's training, a value a seed. Evaluations
don't count. With a machine for each branch an iteration takes as long as its slowest branch and its fine-tuning.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import mean
from typing import Any

from counts import HERE, Archive, archives


def seconds(lines: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Of the arm "main": in turn, and side by side."""
    explored: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    tuned = 0.0
    for line in lines:
        if line.get("arm") == "main" and line["stage"] == "explore":
            explored[line["iteration"]][line["branch"]] += line["seconds"]
        elif line.get("arm") == "main" and line["stage"] == "rft":
            tuned += line["seconds"]
    return {
        "in_turn": tuned + sum(sum(own.values()) for own in explored.values()),
        "side_by_side": tuned + sum(max(own.values()) for own in explored.values()),
    }


def clock(study: str) -> dict[str, Any]:
    arms: dict[str, list[Archive]] = defaultdict(list)
    for archive in archives(study):
        arms[archive.arm].append(archive)
    measured = {arm: [seconds(archive.metrics) for archive in own] for arm, own in arms.items()}
    machines = {archive.config["ran_on"]["processor"] for own in arms.values() for archive in own}
    return {
        "machine": sorted(machines),
        "arms": {
            arm: {
                "seeds": [archive.seed for archive in arms[arm]],
                **{key: [round(one[key], 1) for one in own] for key in ("in_turn", "side_by_side")},
            }
            for arm, own in measured.items()
        },
    }


if __name__ == "__main__":
    found = clock(sys.argv[1])
    (HERE / sys.argv[1] / "clock.json").write_text(json.dumps(found, indent=1) + "\n")
    for arm, own in found["arms"].items():
        print(f"{arm:20} in turn {mean(own['in_turn']):7.1f} s, side by side {mean(own['side_by_side']):7.1f} s")
