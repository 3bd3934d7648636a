"""What a study's committed archives hold: for each policy that was evaluated on the way, its right answers a problem.

FOLDER/finished/<arm>-<seed>.tar.gz is read where it lies; nothing is unpacked.
"""

from __future__ import annotations

import json
import tarfile
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonloop.evaluation.metrics import pass_at_k

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Archive:
    """One finished run."""

    arm: str
    seed: int
    config: dict[str, Any]
    evaluations: list[dict[str, Any]]
    """In the order in which they were made"""
    metrics: list[dict[str, Any]]


def archives(study: str, name: str = "study") -> Iterator[Archive]:
    """The finished runs of evidence/STUDY (of its NAME.toml), by arm and seed."""
    for file in sorted((HERE / study / ("finished" if name == "study" else f"{name}.finished")).glob("*.tar.gz")):
        arm, _, seed = file.name.removesuffix(".tar.gz").rpartition("-")
        config: dict[str, Any] = {}
        evaluations, metrics = [], []
        with tarfile.open(file) as tar:
            for member in tar.getmembers():
                held = tar.extractfile(member) if member.isfile() else None
                text = held.read().decode() if held else ""
                if member.name.endswith("/config.toml"):
                    config = tomllib.loads(text)
                elif member.name.endswith("/metrics.jsonl"):
                    metrics = [json.loads(line) for line in text.splitlines()]
                elif "/evals/" in member.name and member.name.endswith(".json"):
                    evaluations.append(json.loads(text))
        yield Archive(arm, int(seed), config, sorted(evaluations, key=lambda e: e["order"]), metrics)


@dataclass
class Stop:
    """A policy at one place of its training, over the seeds."""

    arm: str
    rollouts: int
    samples: int
    seeds: list[int]
    correct_SP: NDArray[np.int64]
    """Right ones of `samples`, [seeds, problems], problems in order of their ids"""
    rl_steps: int
    rft_updates: list[int]
    """A number a seed: of optimizer, up to here"""
    experts: list[list[int]]
    """For each seed, how many every iteration's RFT was trained on, up to here"""

    def per_problem(self, metric: str) -> NDArray[np.float64]:
        """avg@n or pass@k as each problem's own estimate, [seeds, problems]."""
        if metric.startswith("avg@"):
            return np.asarray(self.correct_SP / self.samples)
        by_count = pass_at_k(self.samples, np.arange(self.samples + 1), int(metric.removeprefix("pass@")))
        return np.asarray(by_count[self.correct_SP])


def stops(study: str) -> dict[str, Stop]:
    """Every policy of evidence/STUDY that was evaluated at the same rollouts in all of its seeds, by name.

    "base"; "ARM@ROLLOUTS", where vanilla RL beside another arm is "vanilla"; "ARM explored@ROLLOUTS" for the RL policy
    that RFT's experts came from. Vanilla RL stopped early, which stops elsewhere in each seed, is left out.
    """
    found: dict[str, list[tuple[Archive, dict[str, Any]]]] = defaultdict(list)
    runs: dict[str, int] = defaultdict(int)
    for archive in archives(study):
        runs[archive.arm] += 1
        for evaluation in archive.evaluations:
            if name := _name(archive, evaluation):
                found[name].append((archive, evaluation))
    result: dict[str, Stop] = {}
    for name, held in found.items():
        own = {archive.seed: (archive, evaluation) for archive, evaluation in held}
        arm = held[0][0].arm
        if name == "base" or len(own) == runs[arm]:
            result[name] = _stop(name, [own[seed] for seed in sorted(own)])
    return dict(sorted(result.items(), key=lambda item: (item[1].arm, item[1].rollouts)))


def _name(archive: Archive, evaluation: dict[str, Any]) -> str | None:
    stage, branch = evaluation["stage"], evaluation["branch"]
    if stage == "base":
        return "base"
    if branch == "early":
        return None
    arm = archive.arm if branch == "main" else branch
    explored = stage == "explore" and branch == "main" and archive.config["method"] == "rloop"
    return f"{arm}{' explored' if explored else ''}@{evaluation['rollouts']}"


def _stop(name: str, own: list[tuple[Archive, dict[str, Any]]]) -> Stop:
    counts, updates, experts = [], [], []
    for archive, evaluation in own:
        rows = sorted((problem["id"], problem["correct"]) for problem in evaluation["problems"])
        counts.append([correct for _, correct in rows])
        until = evaluation["iteration"] if evaluation["stage"] == "rft" else evaluation["iteration"] - 1
        way = (line for line in archive.metrics if line["branch"] == evaluation["branch"])
        before = [line for line in way if line["stage"] in {"select", "rft"} and line["iteration"] <= until]
        updates.append(sum(line["stage"] == "rft" for line in before))
        experts.append([line["trained_on"] for line in before if line["stage"] == "select"])
    rl, last = own[0][0].config["rl"], own[0][1]
    return Stop(
        arm=name.partition("@")[0],
        rollouts=last["rollouts"],
        samples=last["samples"],
        seeds=[archive.seed for archive, _ in own],
        correct_SP=np.array(counts, dtype=np.int64),
        rl_steps=last["rollouts"] // (rl["problems_per_step"] * rl["group_size"]),
        rft_updates=updates,
        experts=experts,
    )
