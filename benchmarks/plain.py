"""What the plain path costs: python benchmarks/plain.py

The bundled model can be packed, so that both paths can be timed on the same work: an RL update of groups of 8 responses of
unlike lengths, and sampling such groups. Plain once with the model's cache, and once anew for every token, as for families
whose cache isn't exact. The ways take turns, so that a busy machine slows all of them. Writes benchmarks/results/plain.json.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reasonloop.bench.measure import GROUP, Workload, examples_for, forced, long_tailed, random_tokens
from reasonloop.bench.result import machine_and_versions, write
from reasonloop.config import Optimizer, Sampling
from reasonloop.engine.native import NativeEngine
from reasonloop.learner.local import LocalLearner
from reasonloop.learner.losses import OBJECTIVES
from reasonloop.policy.plain import PlainScorer
from reasonloop.policy.policy import Policy, Weights

ROUNDS = 5
WORKLOAD = Workload(groups=4, prompt=48, response=32)


def main() -> None:
    torch.set_num_threads(1)
    policies = {name: policy_of(name) for name in ("packed", "plain", "plain, anew for every token")}
    work = {"update": update, "sampling": sampling}
    runs = {kind: {name: make(policy) for name, policy in policies.items()} for kind, make in work.items()}
    seconds: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in policies} for kind in work}
    for turn in range(ROUNDS + 1):
        for kind, ways in runs.items():
            for name, run in ways.items():
                began = time.perf_counter()
                run()
                if turn:  # the first warms up
                    seconds[kind][name].append(time.perf_counter() - began)
    machine, versions = machine_and_versions(1)
    result: dict[str, Any] = {
        "machine": machine,
        "versions": versions,
        "workload": {
            "groups": WORKLOAD.groups,
            "group_size": GROUP,
            "prompt": WORKLOAD.prompt,
            "response": WORKLOAD.response,
        },
        "seconds": seconds,
        "times_as_long": {
            kind: {
                name: statistics.median(a / b for a, b in zip(own, ways["packed"], strict=True))
                for name, own in ways.items()
                if name != "packed"
            }
            for kind, ways in seconds.items()
        },
    }
    print(result["times_as_long"])
    write(result, Path("benchmarks/results/plain.json"))


def policy_of(name: str) -> Policy:
    policy = Policy.load("countdown", "cpu")
    if name != "packed":
        policy.go_plain("to be timed")
        assert isinstance(policy.scorer, PlainScorer)
        assert policy.scorer.cache is not None
        if name.endswith("anew for every token"):
            policy.scorer.cache = None
    return policy


def update(policy: Policy) -> Any:
    learner, examples = LocalLearner(policy, Optimizer(), Sampling()), examples_for(policy, "rl", WORKLOAD)
    return lambda: learner.update(examples, 0.0, OBJECTIVES["dapo"])


def sampling(policy: Policy) -> Any:
    rng = np.random.default_rng(0)
    prompts = [random_tokens(rng, policy, WORKLOAD.prompt) for _ in range(WORKLOAD.groups)]
    lengths = long_tailed(rng, WORKLOAD.groups * GROUP, WORKLOAD.response, 4 * WORKLOAD.response)
    asked, engine = forced(prompts, lengths), NativeEngine()

    def run() -> None:
        engine.load(Weights(policy=policy))
        engine.generate(asked, Sampling(max_tokens=int(lengths.max())))

    return run


if __name__ == "__main__":
    main()
