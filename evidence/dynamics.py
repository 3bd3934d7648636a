"""What happens during a study's runs: python evidence/dynamics.py FOLDER RUNS [--arm rloop]

For RLoop and the vanilla RL beside it in RUNS/<arm>-<seed>, by the functions of `reasonloop.analysis`: what is forgotten of
the base, over-specialisation, inter-step diversity, gradient spikes and collapses, and held-out results after each
iteration. FOLDER/dynamics.json holds every seed's values; means over seeds are printed.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from statistics import fmean
from typing import Any

from reasonloop.analysis.arms import by_arm, evaluated, largest_k
from reasonloop.analysis.diversity import diversity
from reasonloop.analysis.forgetting import forgetting
from reasonloop.analysis.specialisation import specialisation
from reasonloop.analysis.stability import stability
from reasonloop.report.run import read_run
from reasonloop.store.database import connect

ARMS = ("main", "vanilla")
STEPS = 10  # entropy is a mean over so many steps at either end


def dynamics(run: Path) -> dict[str, dict[str, Any]]:
    with connect(run) as database:
        data = read_run(run)
        found, steps = evaluated(data.results), data.rl_steps()
        arms, k = by_arm(found), largest_k(found)
        result: dict[str, dict[str, Any]] = {}
        for arm in ARMS:
            own, entropy = arms[arm], [line["entropy"] for line in steps[arm] if line.get("entropy") is not None]
            last, stable = specialisation(steps[arm], own, k)[-1], stability(steps[arm])
            reach, solved = forgetting([own[0], own[-1]], reachable=True), forgetting(own)
            between = diversity(database, arm, most_per_bin=6)
            result[arm] = {
                "base_reachable_lost": reach.matrix[0][1],
                "newly_reachable": reach.ever_solved - reach.solved[0],
                "ever_solved": solved.ever_solved,
                "ever_solved_gap": solved.ever_solved_gap,
                "train_minus_held_out": last.gap,
                f"pass@{k}_minus_pass@1": last.spread,
                "entropy_first": fmean(entropy[:STEPS]),
                "entropy_last": fmean(entropy[-STEPS:]),
                "diversity_within_a_step": between.within,
                "diversity_between_steps": between.between,
                "diversity_excess": between.excess,
                "grad_norm_median": stable.grad_norm_median,
                "grad_norm_p99": stable.grad_norm_p99,
                "spikes": len(stable.spikes),
                "collapses": len(stable.collapses),
                "skipped_updates": stable.skipped_updates,
                "held_out": [
                    {"name": e.name, "rollouts": e.rollouts, "avg": e.mean("avg"), f"pass@{k}": e.mean(f"pass@{k}")}
                    for e in (*own, *arms.get(f"{arm} explored", [own[0]])[1:])
                ],
            }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--arm", default="rloop")
    arguments = parser.parse_args()
    named = re.compile(re.escape(arguments.arm) + r"-\d+")  # not another arm whose name begins with this one's
    every = (path for path in arguments.runs.iterdir() if named.fullmatch(path.name))
    runs = sorted(path for path in every if (path / "report.html").is_file())
    seeds = {run.name.rpartition("-")[2]: dynamics(run) for run in runs}
    if not seeds:
        parser.error(f"{arguments.runs}: no finished run of arm {arguments.arm!r}")
    (arguments.folder / "dynamics.json").write_text(json.dumps({"arm": arguments.arm, "seeds": seeds}, indent=1) + "\n")
    print(f"means over {len(seeds)} seeds".ljust(28), *(arm.rjust(10) for arm in ARMS))
    for key, value in next(iter(seeds.values()))["main"].items():
        if not isinstance(value, list):
            rows = [[seed[arm][key] for seed in seeds.values() if seed[arm][key] is not None] for arm in ARMS]
            print(key.ljust(28), *(f"{fmean(row):10.3f}" if row else "-".rjust(10) for row in rows))


if __name__ == "__main__":
    main()
