"""Every policy that a study evaluated on the way, not only at its end: python evidence/stops.py [STUDY ...]

From the committed archives alone. FOLDER/stops.json is laid out as results.json is: arms are called "rloop@12800", after
the training rollouts that they had spent, and may be compared at unequal ones; every pair says at how many. Intervals are
those of `reasonloop compare`: 95 %; of differences by bootstrap over seeds and problems, paired by both, of a policy's own
result Wilson's.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np
from counts import HERE, Stop, stops

from reasonloop.evaluation.bootstrap import paired, resampled_means
from reasonloop.evaluation.metrics import mean_interval

STUDIES = ("rloop-room", "rloop-room-96", "rloop-confirm", "rloop", "rloop-long", "sweep-long", "rloop-smollm2")
# Compared with one another in everything; elsewhere only the RL policy and the RFT policy made of its experts are.
WHOLE = ("rloop-room", "rloop-room-96")
# The same held-out problems and seeds, in a folder of its own since it spent more.
MORE = {"rloop-room": "rloop-room-time"}


def results(study: str) -> dict[str, Any]:
    found = stops(study)
    if study in MORE:
        found |= {name: stop for name, stop in stops(MORE[study]).items() if name != "base"}
    found["base"] = found.pop("base")  # last, so that differences are from it
    drawn = Drawn(found)
    pairs: Iterable[tuple[str, str]] = combinations(found, 2)
    if study not in WHOLE:
        pairs = [(name.replace(" explored", ""), name) for name in found if " explored" in name]
    return {
        "made_by": "evidence/stops.py",
        "arms": {name: drawn.arm(name) for name in found},
        "comparisons": [drawn.compared(a, b, metric) for a, b in pairs for metric in drawn.metrics],
    }


class Drawn:
    """The policies of a study under one and the same resamples of its problems."""

    def __init__(self, found: dict[str, Stop]) -> None:
        self.found = found
        samples = found["base"].samples
        self.metrics = [f"avg@{samples}", *(f"pass@{k}" for k in (8, 16, 32) if k <= samples)]
        cells = {(name, metric): stop.per_problem(metric) for name, stop in found.items() for metric in self.metrics}
        self.own = {cell: list(mean_interval(values_SP)) for cell, values_SP in cells.items()}
        rows_RD = resampled_means(np.concatenate([*cells.values()]))
        drawn = np.split(rows_RD, np.cumsum([len(values_SP) for values_SP in cells.values()])[:-1])
        self.means_S = {cell: values_SP.mean(axis=1) for cell, values_SP in cells.items()}
        self.draws_SD = dict(zip(cells, drawn, strict=True))

    def arm(self, name: str) -> dict[str, Any]:
        stop, (average, *passes) = self.found[name], self.metrics
        values = {metric: self.means_S[name, metric].tolist() for metric in self.metrics}
        bounds = {metric: self.own[name, metric] for metric in self.metrics}
        return {
            "rollouts": stop.rollouts,
            "seeds": stop.seeds,
            average: values[average],
            "pass@k": {metric.removeprefix("pass@"): values[metric] for metric in passes},
            "ci95": {average: bounds[average], "pass@k": {m.removeprefix("pass@"): bounds[m] for m in passes}},
            "rl_steps": stop.rl_steps,
            "rft_updates": stop.rft_updates,
            "experts": stop.experts,
        }

    def compared(self, a: str, b: str, metric: str) -> dict[str, Any]:
        arms = self.found[a], self.found[b]
        seeds = sorted(set(arms[0].seeds) & set(arms[1].seeds))
        rows = [[arm.seeds.index(seed) for seed in seeds] for arm in arms]
        means = [self.means_S[name, metric][own] for name, own in zip((a, b), rows, strict=True)]
        a_SD, b_SD = (self.draws_SD[name, metric][own] for name, own in zip((a, b), rows, strict=True))
        return {
            "a": a,
            "b": b,
            "metric": metric,
            "rollouts": [arm.rollouts for arm in arms],
            "seeds": seeds,
            **asdict(paired(a_SD, b_SD, (float(means[0].mean()), float(means[1].mean())), arms[0].correct_SP.shape[1])),
            "ahead_in": int((means[0] > means[1]).sum()),
        }


def main() -> None:
    for study in sys.argv[1:] or STUDIES:
        rows = json.dumps(results(study))
        # a line an arm or a comparison: readable, and not ten thousand lines
        rows = (
            rows.replace('}, {"a"', '},\n{"a"')
            .replace("}, ", "},\n")
            .replace('"comparisons": [', '\n"comparisons": [\n')
        )
        (HERE / study / "stops.json").write_text(rows + "\n")


if __name__ == "__main__":
    main()
