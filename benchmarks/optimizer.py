"""AdamW with moments of 8 bits against float32: python benchmarks/optimizer.py (needs pip install 'reasonloop[optim]')

The bundled model is fine-tuned on the same demonstrations in the same order, 100 updates at its recipes' rate, once with
each; the losses are those of the last 20 updates. A seed is another draw of demonstrations. Also bytes a weight, and the
seconds of the optimizer's step on random gradients of SmolLM2's size. Writes benchmarks/results/optimizer.json.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reasonloop.bench.result import machine_and_versions, write
from reasonloop.config import Optimizer, Sampling
from reasonloop.learner.batch import supervised
from reasonloop.learner.local import LocalLearner
from reasonloop.learner.optimizers import adamw
from reasonloop.policy.policy import Policy
from reasonloop.tasks.countdown.task import Countdown

SEEDS, UPDATES, BATCH, RATE = range(5), 100, 16, 3e-4
STATES = {"float32": Optimizer(), "8bit": Optimizer(state="8bit")}


def main() -> None:
    torch.set_num_threads(1)
    losses = {name: [trained(options, seed) for seed in SEEDS] for name, options in STATES.items()}
    difference = np.array(losses["8bit"]) - np.array(losses["float32"])
    half = 2.776 * difference.std(ddof=1) / len(SEEDS) ** 0.5  # Student's t of 4 degrees of freedom
    machine, versions = machine_and_versions(1)
    import bitsandbytes

    result: dict[str, Any] = {
        "machine": machine,
        "versions": versions | {"bitsandbytes": bitsandbytes.__version__},
        "loss": losses,
        "difference": float(difference.mean()),
        "ci95": [float(difference.mean() - half), float(difference.mean() + half)],
        "step": {name: step(options) for name, options in STATES.items()},
    }
    print(result)
    write(result, Path("benchmarks/results/optimizer.json"))


def trained(options: Optimizer, seed: int) -> float:
    """Nats a token, of the last 20 updates."""
    policy = Policy.load("countdown", "cpu")
    task = Countdown(numbers=[3], train=0, probe=0, test=0, seed=seed)
    found = task.demonstrations(UPDATES * BATCH, seed, skill=0.3, max_words=40)
    pairs = [(policy.codec.encode_prompt(problem), policy.codec.encode_response(text)) for problem, text in found]
    learner = LocalLearner(policy, options, Sampling())
    losses = [learner.update(supervised(pairs[i * BATCH : (i + 1) * BATCH]), RATE)["loss"] for i in range(UPDATES)]
    return float(np.mean(losses[-20:]))


def step(options: Optimizer) -> dict[str, float]:
    """On 8 matrices of 1024 x 4096."""
    parameters = [torch.nn.Parameter(torch.randn(1024, 4096)) for _ in range(8)]
    made, count = adamw(parameters, options), sum(p.numel() for p in parameters)
    seconds = []
    for _ in range(4):
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        began = time.perf_counter()
        made.step()
        seconds.append(time.perf_counter() - began)
    tensors = [t for state in made.state.values() for t in state.values() if isinstance(t, torch.Tensor)]
    kept = sum(t.numel() * t.element_size() for t in tensors)
    return {"bytes_a_weight": kept / count, "seconds_a_billion": min(seconds) / count * 1e9}


if __name__ == "__main__":
    main()
