"""What is not used yet, against what is: python benchmarks/gpu/trials.py FILE [--cpu]

Head: log-probs and their gradients at a vocabulary of 151,936, in small chunks, in ours, with the passes over logits
compiled, and by Liger's fused linear cross entropy where it is installed. Norms: an update and decoding with the modules'
own RMS norms. Layers: the same with the model's layers compiled by `torch.compile`. Each trial's failure is written down and
hides no other. With --cpu toy sizes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from reasonloop.bench import measure
from reasonloop.bench.ceilings import seconds_per_call
from reasonloop.config import Optimizer, Sampling
from reasonloop.engine.native import NativeEngine
from reasonloop.learner.local import LocalLearner
from reasonloop.learner.losses import OBJECTIVES
from reasonloop.policy import logprobs, norms
from reasonloop.policy.logprobs import Head, target_logprobs
from reasonloop.policy.policy import Policy


class Trials:
    def __init__(self, cpu: bool) -> None:
        self.cpu, self.device = cpu, "cpu" if cpu else "cuda"
        self.dtype = torch.float32 if cpu else torch.bfloat16
        self.found: dict[str, Any] = {}
        self.lines: list[str] = []

    def note(self, name: str, work: Callable[[], float]) -> None:
        try:
            self.found[name] = seconds = work()
            self.lines.append(f"{name}: {1e3 * seconds:.1f} ms")
        except Exception as error:  # a trial: the others go on
            self.found[name] = f"{type(error).__name__}: {error}"
            self.lines.append(f"{name}: failed: {self.found[name].splitlines()[0][:200]}")
        print(self.lines[-1], flush=True)

    def head(self) -> None:
        rows, size, words = (64, 32, 1000) if self.cpu else (8192, 1024, 151936)
        hidden = torch.randn(rows, size, device=self.device, dtype=self.dtype, requires_grad=True)
        weight = (0.02 * torch.randn(words, size, device=self.device)).to(self.dtype).requires_grad_()
        targets = torch.randint(words, (rows,), device=self.device)

        def ours() -> None:
            found, _ = target_logprobs(hidden, Head(weight), targets, Sampling())
            torch.autograd.grad(found.sum(), (hidden, weight))

        def liger() -> None:
            from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

            found = LigerFusedLinearCrossEntropyLoss(reduction="sum")(weight, hidden, targets)
            torch.autograd.grad(found, (hidden, weight))

        self.note("head, our chunks", lambda: seconds_per_call(ours, self.device, 0.5))
        with patch.object(logprobs, "chunk_elements", lambda device: 1 << 24):
            self.note("head, chunks of 2^24", lambda: seconds_per_call(ours, self.device, 0.5))
        if not self.cpu:
            with ExitStack() as compiled:
                for name in ("_measured", "_gradients"):
                    found = torch.compile(getattr(logprobs, name), dynamic=True)
                    compiled.enter_context(patch.object(logprobs, name, found))
                self.note("head, passes over logits compiled", lambda: seconds_per_call(ours, self.device, 0.5))
            self.note("head, Liger (no entropies, mean of all only)", lambda: seconds_per_call(liger, self.device, 0.5))

    def policy(self) -> Policy:
        layout, dtype = (None, "float32") if self.cpu else ("qwen3-0.6b", "bfloat16")
        return measure.load("countdown", layout, self.device, dtype)

    def update(self, policy: Policy) -> float:
        workload = measure.Workload(context=128 if self.cpu else 8192)
        examples = measure.examples_for(policy, "rl", workload)
        learner = LocalLearner(policy, Optimizer(microbatch_tokens=workload.context), Sampling())

        def one() -> float:
            began = perf_counter()
            learner.update(examples, 0.0, OBJECTIVES["dapo"])
            return perf_counter() - began

        return min([one() for _ in range(4)][1:])

    def decoding(self, policy: Policy) -> float:
        rng, rows = np.random.default_rng(0), 2 if self.cpu else 64
        prompts = [measure.random_tokens(rng, policy, 8) for _ in range(rows)]
        asked = measure.forced(prompts, np.full(rows, 24))
        engine = NativeEngine(rows)
        return min([measure.decoding_step(policy, asked, engine, turn) for turn in range(4)][1:])

    def model(self) -> None:
        self.both("as it is", self.policy())
        with patch.object(norms, "fuse", lambda model: 0):
            self.both("the modules' own norms", self.policy())
        if self.cpu:  # takes a C++ compiler a minute
            return
        compiled = self.policy()
        for layer in compiled.model.base_model.layers:
            layer.compile()
        self.both("compiled layers", compiled)

    def both(self, name: str, policy: Policy) -> None:
        self.note(f"update, {name}", lambda: self.update(policy))
        self.note(f"decoding step, {name}", lambda: self.decoding(policy))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("file", type=Path)
    options.add_argument("--cpu", action="store_true")
    args = options.parse_args()
    trials = Trials(args.cpu)
    for part in (trials.head, trials.model):
        part()
        report = {"seconds": trials.found, "lines": trials.lines}
        args.file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
