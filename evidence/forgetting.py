"""Forgetting, diversity and stability on every ground: python evidence/forgetting.py        (-> evidence/forgetting.json)

From counts (evidence/*/finished): of the problems that the base reaches in 16 tries, the share that a policy doesn't reach
in 16 of its own, expected over which 16 of its tries are drawn; for the base itself, in 16 others of its tries: what
chance alone loses. From evidence/*/dynamics.json: the diversity of right answers, entropy, gradients. Intervals: over
seeds and problems for what comes from counts, over seeds (t) for the rest, and only of three seeds or more.
"""

from __future__ import annotations

import json
from statistics import fmean
from typing import Any

import numpy as np
from counts import HERE, Stop, stops
from numpy.typing import NDArray
from quoted import by_seeds

from reasonloop.evaluation.bootstrap import interval, over_seeds, resampled_means
from reasonloop.evaluation.metrics import pass_at_k

TRIES = 16
# ground -> RLoop's last policy and the vanilla RL beside it, where archives hold both
COUNTED = {
    "rloop-room": ("rloop@38400", "vanilla@38400"),
    "rloop-confirm": ("rloop@38400", "vanilla@38400"),
    "rloop-room-96": ("rloop@38400", "vanilla@38400"),
    "rloop": ("rloop@20480", "vanilla@20480"),
    "rloop-long": ("rloop@20480", "vanilla@20480"),
    "sweep-long": ("gentle@20480", "vanilla@20480"),
}
GROUNDS = ("rloop-room", "rloop-confirm", "rloop-wide", "rloop-room-96", "rloop", "rloop-long", "sweep-long")
QUANTITIES = (
    "diversity_excess", "diversity_within_a_step", "diversity_between_steps", "ever_solved", "ever_solved_gap",
    "base_reachable_lost", "train_minus_held_out", "entropy_first", "entropy_last", "grad_norm_median", "grad_norm_p99",
    "spikes", "collapses",
)  # fmt: skip


def missed(stop: Stop, tries: int) -> NDArray[np.float64]:
    """The chance that so many of a policy's tries hold no right one, [seeds, problems]."""
    every = np.arange(stop.samples + 1)
    return np.asarray((1 - pass_at_k(stop.samples, every, tries))[stop.correct_SP])


def counted(study: str, rloop: str, vanilla: str) -> dict[str, Any]:
    found = stops(study)
    base = found["base"]
    reached_SP = 1 - missed(base, TRIES)
    # two halves of the same tries: both miss only where none of all is right
    lost = {"base": missed(base, TRIES) - missed(base, 2 * TRIES)}
    lost |= {name: reached_SP * missed(found[arm], TRIES) for name, arm in (("vanilla", vanilla), ("rloop", rloop))}
    seeds = len(base.seeds)
    draws = np.split(resampled_means(np.concatenate([reached_SP, *lost.values()])), len(lost) + 1)
    reached_D = over_seeds(draws[0])
    of = {name: over_seeds(own_SD) / reached_D for name, own_SD in zip(lost, draws[1:], strict=True)}
    whole = reached_SP.mean()
    result: dict[str, Any] = {
        name: {"value": float(own_SP.mean() / whole), "ci95": list(interval(of[name]))} for name, own_SP in lost.items()
    }
    between = {"absolute": result["rloop"]["value"] - result["vanilla"]["value"]}
    between["ci95_absolute"] = list(interval(of["rloop"] - of["vanilla"]))
    return {"seeds": seeds, "problems": reached_SP.shape[1], **result, "rloop_minus_vanilla": between}


def over(values: list[float]) -> dict[str, Any]:
    found: dict[str, Any] = {"value": fmean(values), "seeds": values}
    if len(values) > 2:
        found["ci95"] = list(by_seeds(values)[1:])
    return found


def dynamics(study: str) -> dict[str, Any]:
    seeds = list(json.loads((HERE / study / "dynamics.json").read_text())["seeds"].values())
    result: dict[str, Any] = {"seeds": len(seeds)}
    for quantity in QUANTITIES:
        pairs = [(seed["main"].get(quantity), seed["vanilla"].get(quantity)) for seed in seeds]
        rloop, vanilla = ([pair[side] for pair in pairs if pair[side] is not None] for side in (0, 1))
        own = {name: over(values) for name, values in (("rloop", rloop), ("vanilla", vanilla)) if values}
        if len(rloop) == len(vanilla) == len(seeds):
            own["rloop_minus_vanilla"] = over([a - b for a, b in pairs])
        result[quantity] = own
    return result


def results() -> dict[str, Any]:
    grounds: dict[str, Any] = {}
    for study in GROUNDS:
        grounds[study] = {}
        if study in COUNTED:
            grounds[study][f"lost_in_{TRIES}"] = counted(study, *COUNTED[study])
        if (HERE / study / "dynamics.json").is_file():
            grounds[study] |= {"dynamics": dynamics(study)}
    return {"made_by": "evidence/forgetting.py", "grounds": grounds}


if __name__ == "__main__":
    (HERE / "forgetting.json").write_text(json.dumps(results(), indent=1) + "\n")
