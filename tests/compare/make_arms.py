"""Finished run folders with chosen results and no rollouts in them: all that a comparison reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from made_arms import recorded

from reasonloop.evaluation.metrics import summarise

N = 32


def make_run(
    folder: Path,
    *,
    method: str = "rloop",
    seed: int = 0,
    main: Sequence[int] | None = None,
    vanilla: Sequence[int] | None = None,
    base: Sequence[int] | None = None,
    ids: Sequence[str] | None = None,
    rollouts: int = 768,
    n: int = N,
    probes: Sequence[tuple[int, float]] = (),
    drawn: dict[str, Any] | None = None,
    **options: dict[str, Any],
) -> Path:
    """A run of 2 iterations x 3 steps (`rl`: 6 steps) whose policies solve `main`, `vanilla`, `base` of n samples a problem.

    `options`: sections of the recipe, laid over it. `drawn`: the distribution that its evaluations name.
    """
    main = [16, 8, 0, 32] if main is None else main
    base = [8] * len(main) if base is None else base
    ids = [f"p{i}" for i in range(len(main))] if ids is None else ids
    recipe: dict[str, Any] = {
        "method": method,
        "seed": seed,
        "rl": {"steps": 3 if method == "rloop" else 6, "problems_per_step": 16, "group_size": 8},
        "rloop": {"iterations": 2, "vanilla": method == "rloop" and vanilla is not None},
        "eval": {"samples": n},
    }
    for section, values in options.items():
        recipe[section] = {**recipe.get(section, {}), **values}
    ran_on = {"python": "3.11", "processor": "a made-up one", "cores": 8, "threads": 2, "versions": {"torch": "2.13"}}
    (folder / "evals").mkdir(parents=True)
    (folder / "config.toml").write_text(tomli_w.dumps({**recipe, "ran_on": ran_on}))
    (folder / "state.json").write_text(json.dumps({"stage": "done"}))
    half = [(a + b) // 2 for a, b in zip(main, base, strict=True)]
    made: list[tuple[str, str, str, int, int, Sequence[int]]] = [("base", "base", "main", 0, 0, base)]
    if method == "rloop":
        for i, correct in enumerate((half, main)):
            spent = rollouts * (i + 1) // 2
            made.append((f"iteration-{i}-explored", "explore", "main", i, spent, half))
            made.append((f"iteration-{i}-rft", "rft", "main", i, spent, correct))
        if vanilla is not None:
            made.append(("vanilla", "explore", "vanilla", 0, rollouts, vanilla))
    elif method == "rlsp":
        made.append(("sft", "sft", "main", 0, 0, half))
        made.append(("trained", "explore", "main", 0, rollouts, main))
        if vanilla is not None:
            made.append(("vanilla", "explore", "vanilla", 0, rollouts, vanilla))
    elif method == "rl":
        made.append(("trained", "explore", "main", 0, rollouts, main))
    else:
        made.append(("sft", "sft", "main", 0, 0, main))
    kept = recorded(recipe).evaluations
    for order, (name, stage, branch, iteration, spent, correct) in enumerate(made):
        problems = [{"id": i, "n": n, "correct": int(c)} for i, c in zip(ids, correct, strict=True)]
        evaluation = {
            **kept.get(name, {}), "name": name, "order": order,
            "stage": stage, "branch": branch, "iteration": iteration, "rollouts": spent,
            "task": "countdown", "split": "test", "samples": n, "metrics": summarise(problems),
            "sampling": drawn or {"temperature": 1.0},
            "problems": problems,
        }  # fmt: skip
        (folder / "evals" / f"{name}.json").write_text(json.dumps(evaluation))
    lines = [
        {
            "stage": "probe",
            "arm": "vanilla" if method == "rl" else "main",
            "branch": "main",
            "iteration": 0,
            "step": i,
            "rollouts": x,
            "avg@8": y,
            "pass@8": y,
        }
        for i, (x, y) in enumerate(probes)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def drawn(seed: int, problems: int, ability: float, n: int = N) -> list[int]:
    """Right samples of problems of unequal difficulty (the same for every seed), for a policy of this ability."""
    difficulty = np.random.default_rng(99).normal(0, 1.2, problems)
    share = 1 / (1 + np.exp(difficulty - ability))
    return np.random.default_rng(seed).binomial(n, share).tolist()


if __name__ == "__main__":
    import sys

    root = Path(sys.argv[1])
    for seed in range(5):
        level = 0.05 * seed
        curve = [(i * 64, 0.2 + 0.04 * i - 0.003 * i * i + 0.01 * seed) for i in range(13)]
        arm = {"seed": seed, "base": drawn(seed + 100, 150, -0.5), "probes": curve}
        make_run(
            root / f"rloop-{seed}", main=drawn(seed, 150, 0.5 + level), vanilla=drawn(seed + 50, 150, level), **arm
        )
        for i, (key, value) in enumerate([("experts", "last_step"), ("cap", 4), ("weighted", True)]):
            run = drawn(seed + 10 * i, 150, 0.2 * i + level)
            make_run(root / f"{key}-{seed}", main=run, rloop={key: value}, **arm)
