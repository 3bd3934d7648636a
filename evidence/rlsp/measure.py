"""What the policies of an RLSP study do on held-out problems: python evidence/rlsp/measure.py RUNS [--study rlsp-long]

RUNS: the folder that `reasonloop study evidence/rlsp` (or evidence/rlsp-long) has filled. Each arm's policy of each seed
answers the test problems; counted are accuracy, response length, behaviours per 1,000 tokens in right and wrong responses,
and search effort (nodes of the search tree that were visited) against difficulty: by how many distinct solutions a problem
has, by how many numbers, and as the slope of a problem's mean nodes on the logarithm of its solutions. Self-consistency of
the SFT policy gets as many tokens a problem as the RLSP policy spends on 4 samples. Writes evidence/STUDY/behaviours.json.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reasonloop import config
from reasonloop.analysis.behaviours import countdown_behaviours
from reasonloop.analysis.lexicon import BEHAVIOURS
from reasonloop.engine.native import NativeEngine
from reasonloop.engine.sample import Sampler
from reasonloop.evaluation.majority import self_consistency
from reasonloop.evaluation.metrics import bootstrap_ci
from reasonloop.policy.policy import Policy, Weights
from reasonloop.records import Group, Place, Problem
from reasonloop.tasks import load_task

SAMPLES = 16
# study -> arm -> (run, checkpoint); None: the base model
SHARED: dict[str, tuple[str, str | None]] = {
    "base": ("length", None),
    "SFT": ("length", "main-sft-0"),
    "SFT + outcome": ("length", "vanilla-explore-0"),
    "SFT + length": ("length", "main-explore-0"),
    "SFT + novelty": ("novelty", "main-explore-0"),
}
POLICIES: dict[str, dict[str, tuple[str, str | None]]] = {
    "rlsp": {
        **SHARED,
        "SFT + difficulty x length": ("difficulty", "main-explore-0"),
        "outcome, no SFT": ("pure", "main-explore-0"),
        "length, no SFT": ("pure-length", "main-explore-0"),
    },
    "rlsp-long": {
        **SHARED,
        "SFT + length, no KL": ("length-beta-0", "main-explore-0"),
        "SFT + outcome, no KL": ("outcome-beta-0", "main-explore-0"),
        "SFT + tune and decay": ("decay", "main-explore-0"),
        "SFT + judge": ("judge", "main-explore-0"),
    },
}
BANDS = ((1, 2), (3, 6), (7, 10**6))
"""Distinct solutions of a problem: few is hard"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--study", choices=POLICIES, default="rlsp")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    here = Path("evidence") / arguments.study
    study = tomllib.loads((here / "study.toml").read_text())
    arms: dict[str, Any] = {}
    votes: list[dict[str, float]] = []
    ran_on: dict[str, Any] = {}
    for seed in study["seeds"]:
        kept: dict[str, Any] = {}
        for arm, (run, stage) in POLICIES[arguments.study].items():
            folder = arguments.runs / f"{run}-{seed}"
            if not (folder / "model").is_dir():
                continue
            stored = tomllib.loads((folder / "config.toml").read_text())
            ran_on = stored.pop("ran_on")
            recipe = config.parse(stored, [], str(folder))
            policy = Policy.load(folder / "checkpoints" / stage if stage else recipe.model.source)
            measured, kept[arm] = measure(policy, recipe)
            arms.setdefault(arm, []).append({"seed": seed, **measured})
            print(arm, seed, round(measured["accuracy"], 3), round(measured["tokens"], 1), flush=True)
        if "SFT" in kept and "SFT + length" in kept:
            votes.append({"seed": seed, **vote(kept["SFT"], kept["SFT + length"])})
    result = {
        "machine": {key: ran_on[key] for key in ("processor", "cores", "platform")},
        "versions": {"python": ran_on["python"], **ran_on["versions"]},
        "samples": SAMPLES,
        "solution_bands": BANDS,
        "arms": arms,
        "means": {arm: means(rows) for arm, rows in arms.items()},
        "self_consistency": votes,
    }
    (here / "behaviours.json").write_text(json.dumps(result, indent=1) + "\n")


def measure(policy: Policy, recipe: config.Recipe) -> tuple[dict[str, Any], dict[str, Any]]:
    task = load_task(recipe.task.name, recipe.task.options)
    problems: list[Problem] = [p for p in task.problems() if p.split == "test"]
    engine = NativeEngine()
    engine.load(Weights(policy=policy))
    asked = [Group(problem, policy.codec.encode_prompt(problem)) for problem in problems]
    sampler = Sampler(engine, policy.codec, recipe.sampling, recipe.seed)
    found = sampler.sample(asked, SAMPLES, Place("eval", "measure"))
    rows = []
    for problem, rollout in ((group.problem, rollout) for group in found for rollout in group.rollouts):
        judgement = task.verify(problem, rollout.text)
        counts = countdown_behaviours(problem, rollout.text)
        rows.append(
            {
                "right": judgement.verdict == "right",
                "answer": judgement.detail if judgement.verdict != "unparseable" else None,
                "tokens": len(rollout.response_tokens),
                "nodes": counts.nodes,
                "problem": problem.id,
                "solutions": problem.meta["solutions"],
                "numbers": len(problem.meta["numbers"]),
                **counts.behaviours,
            }
        )
    right = [r for r in rows if r["right"]]
    wrong = [r for r in rows if not r["right"]]
    measured = {
        "accuracy": len(right) / len(rows),
        "tokens": float(np.mean([r["tokens"] for r in rows])),
        "nodes": float(np.mean([r["nodes"] for r in rows])),
        "per_1000_tokens": {b: per_1000(rows, b) for b in BEHAVIOURS},
        "per_1000_tokens_right": {b: per_1000(right, b) for b in BEHAVIOURS},
        "per_1000_tokens_wrong": {b: per_1000(wrong, b) for b in BEHAVIOURS},
        "nodes_by_solutions": [mean_in(rows, "nodes", band) for band in BANDS],
        "tokens_by_solutions": [mean_in(rows, "tokens", band) for band in BANDS],
        "accuracy_by_solutions": [mean_in(rows, "right", band) for band in BANDS],
        "by_numbers": {
            str(count): {
                key: float(np.mean([r[key] for r in rows if r["numbers"] == count]))
                for key in ("nodes", "tokens", "right")
            }
            for count in sorted({r["numbers"] for r in rows})
        },
        "slope": slope(rows),
    }
    grid = {
        key: [[r[key] for r in rows[i : i + SAMPLES]] for i in range(0, len(rows), SAMPLES)]
        for key in ("answer", "right", "tokens")
    }
    return measured, grid


def slope(rows: list[dict[str, Any]]) -> float:
    """Of a problem's mean nodes on the logarithm of its solutions: below 0 where harder problems are searched longer."""
    problems: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        problems.setdefault(row["problem"], []).append(row)
    difficulty = [float(np.log(own[0]["solutions"])) for own in problems.values()]
    return float(np.polyfit(difficulty, [np.mean([r["nodes"] for r in own]) for own in problems.values()], 1)[0])


def vote(sft: dict[str, Any], ours: dict[str, Any]) -> dict[str, float]:
    """Both vote, with the tokens that 4 samples of ours take on average."""
    budget = 4 * float(np.mean(ours["tokens"]))
    return {
        "token_budget": budget,
        "SFT": float(self_consistency(sft["answer"], sft["right"], sft["tokens"], budget).mean()),
        "SFT + length": float(self_consistency(ours["answer"], ours["right"], ours["tokens"], budget).mean()),
    }


def per_1000(rows: list[dict[str, Any]], behaviour: str) -> float:
    return 1000 * sum(r[behaviour] for r in rows) / max(1, sum(r["tokens"] for r in rows))


def mean_in(rows: list[dict[str, Any]], key: str, band: tuple[int, int]) -> float:
    return float(np.mean([r[key] for r in rows if band[0] <= r["solutions"] <= band[1]]))


def means(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean over seeds with a 95 % bootstrap interval over them."""

    def of(values: list[float]) -> dict[str, Any]:
        return {"mean": float(np.mean(values)), "ci95": list(bootstrap_ci(np.array(values)))}

    summary: dict[str, Any] = {key: of([row[key] for row in rows]) for key in ("accuracy", "tokens", "nodes", "slope")}
    summary["by_numbers"] = {
        count: {key: of([row["by_numbers"][count][key] for row in rows]) for key in ("nodes", "tokens", "right")}
        for count in rows[0]["by_numbers"]
    }
    for split in ("per_1000_tokens", "per_1000_tokens_right", "per_1000_tokens_wrong"):
        summary[split] = {b: of([row[split][b] for row in rows]) for b in BEHAVIOURS}
    for key in ("nodes_by_solutions", "tokens_by_solutions", "accuracy_by_solutions"):
        summary[key] = [of([row[key][band] for row in rows]) for band in range(len(BANDS))]
    return summary


if __name__ == "__main__":
    main()
