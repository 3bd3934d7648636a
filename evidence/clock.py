"""How long the arms of a study train, and how long they would if each of the explorations side by side had a machine.

    python evidence/clock.py branches [few]

Reads evidence/STUDY/finished (few.finished), writes evidence/STUDY/clock.json (few.clock.json): seconds of each run's
training, a value a seed. Evaluations don't count. With a machine for each branch an iteration takes as long as its slowest
branch and its fine-tuning. Other work ran beside, and not the same beside each run: the share, which is within a run, says
more than the seconds.
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


def clock(study: str, name: str) -> dict[str, Any]:
    arms: dict[str, list[Archive]] = defaultdict(list)
    for archive in archives(study, name):
        arms[archive.arm].append(archive)
    measured = {arm: [seconds(archive.metrics) for archive in own] for arm, own in arms.items()}
    machines = {archive.config["ran_on"]["processor"] for own in arms.values() for archive in own}
    return {
        "machine": sorted(machines),
        "arms": {
            arm: {
                "seeds": [archive.seed for archive in arms[arm]],
                **{key: [round(one[key], 1) for one in own] for key in ("in_turn", "side_by_side")},
                "share": [round(one["side_by_side"] / one["in_turn"], 3) for one in own],
            }
            for arm, own in measured.items()
        },
    }


if __name__ == "__main__":
    study, name = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "study"
    found = clock(study, name)
    file = "clock.json" if name == "study" else f"{name}.clock.json"
    (HERE / study / file).write_text(json.dumps(found, indent=1) + "\n")
    for arm, own in found["arms"].items():
        turn, side, share = (mean(own[key]) for key in ("in_turn", "side_by_side", "share"))
        print(f"{arm:20} in turn {turn:7.1f} s, side by side {side:7.1f} s, {share:.2f}")
