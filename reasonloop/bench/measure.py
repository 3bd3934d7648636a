"""`reasonloop bench`: sampled and trained tokens/s of a model on this machine, beside what the machine could do.

Sampling: random prompts, responses of forced length, in groups of 8 behind a shared prompt. Training: the learner's whole
update (forward, backward, AdamW) on one batch of SFT and one of RL, both without padding and with long-tailed lengths.
Shares of peak count only the floating point operations that the batch needs (`ceilings.Cost`).
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reasonloop.errors import InputError
from reasonloop.machine.threads import prepare_threads

if TYPE_CHECKING:
    from reasonloop.config import Sampling
    from reasonloop.engine.protocol import Address, Engine, Prompt
    from reasonloop.learner.batch import Example
    from reasonloop.policy.policy import Policy

GROUP = 8
LAYOUTS: dict[str, dict[str, Any]] = {
    # the shapes of Qwen/Qwen3-0.6B's config.json; weights are random, so that none have to be fetched
    "qwen3-0.6b": {
        "vocab_size": 151936,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 40960,
        "rope_theta": 1000000,
        "tie_word_embeddings": True,
    },
}


@dataclass(frozen=True)
class Workload:
    """What is measured. Lengths are in tokens."""

    batches: tuple[int, ...] = (1, 64)
    """Responses decoded at once"""
    prompt: int = 48
    response: int = 64
    """Length of sampled responses, and mean length of trained ones"""
    groups: int = 4
    """Groups of 8 long-tailed responses in a training batch; as many responses with a prompt each in SFT"""
    context: int = 0
    """If not 0, training is on one packed stream of so many tokens instead: SFT one sequence, RL one group of 8"""
    seconds: float = 3.0
    """Time for each measurement, after a warm-up; at least one run"""


def machine_and_versions(threads: int) -> tuple[dict[str, Any], dict[str, str]]:
    """The "machine" and "versions" of a result file."""
    from reasonloop.config import Recipe
    from reasonloop.run.ran_on import describe_machine

    ran_on = describe_machine(Recipe(threads=threads))
    machine = {key: ran_on[key] for key in ("processor", "compiler", "kernels", "cores", "threads", "platform")}
    return machine, {"python": ran_on["python"], **ran_on["versions"]}


def long_tailed(rng: np.random.Generator, count: int, mean: float, longest: int) -> np.ndarray:
    """int64 [count] response lengths in [1, longest] from a log-normal with sigma 0.8: most short, a few stragglers.

    `mean` is the distribution's before it is cut at `longest`.
    """
    drawn = rng.lognormal(np.log(mean) - 0.32, 0.8, count)
    return np.clip(np.rint(drawn), 1, longest).astype(np.int64)


def load(model: str, layout: str | None, device: str, dtype: str = "float32") -> Policy:
    """The policy to measure: `model` as everywhere, or random weights in one of LAYOUTS (with a tokenizer of no use)."""
    import torch

    from reasonloop.policy.policy import Policy

    if layout is None:
        policy = Policy.load(model, device, "float32")
    else:
        from transformers import AutoModelForCausalLM, Qwen3Config

        from reasonloop.tasks.countdown.tokenizer import build_tokenizer

        if layout not in LAYOUTS:
            raise InputError(f"--layout {layout}: unknown; expected one of {', '.join(LAYOUTS)}")
        torch.manual_seed(0)
        with torch.device(device):
            random = AutoModelForCausalLM.from_config(Qwen3Config(**LAYOUTS[layout]))
        policy = Policy(random, build_tokenizer())
    policy.compute_in(dtype)
    return policy


def bench(
    model: str = "countdown",
    layout: str | None = None,
    workload: Workload | None = None,
    *,
    threads: int = 0,
    device: str = "auto",
    dtype: str = "float32",
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measures, and returns {"machine", "versions", "workload", "model", "peak", "sampling": [...], "training": [...]}; and
    "pairs", "median_ratio" and "peer", which a benchmark's result file has, although there is no peer here.

    `tell` gets a line as soon as there is one. Raises InputError where the model's context can't hold the workload.
    """
    workload = workload or Workload()
    from reasonloop.bench import ceilings

    used = prepare_threads(threads)
    import torch

    from reasonloop.policy.policy import resolve_device

    device = resolve_device(device)
    policy = load(model, layout, device, dtype)
    _check(policy, workload)
    cost = ceilings.Cost.of(policy.model)
    machine, versions = machine_and_versions(used)
    if device == "cuda":
        machine["gpu"] = torch.cuda.get_device_name()
    shapes = [
        (1024, w.shape[1], w.shape[0]) for w in {tuple(w.shape): w for w in ceilings.matrices(policy.model)}.values()
    ]
    flops, torchs = (ceilings.matrix_peak(device, getattr(torch, dtype), shapes, torchs=only) for only in (False, True))
    bandwidth = ceilings.memory_bandwidth(device)
    tell(
        f"{layout or model}: {(cost.body + cost.head) / 1e6:.1f} M weights in matrix products, {dtype} on {device}, "
        f"{used} threads; matrix peak {flops / 1e9:,.0f} GFLOP/s (torch's {torchs / 1e9:,.0f}), "
        f"bandwidth {bandwidth / 1e9:,.0f} GB/s"
    )
    result: dict[str, Any] = {
        "machine": machine,
        "versions": versions,
        "pairs": [],
        "median_ratio": None,
        "peer": None,
        "workload": asdict(workload),
        "model": {"name": layout or model, "weights": cost.body + cost.head, "dtype": dtype, "device": device},
        "peak": {"flops": flops, "torch_flops": torchs, "bytes_per_second": bandwidth},
        "sampling": [],
        "training": [],
    }
    for batch in workload.batches:
        row = sampling(policy, batch, workload, bandwidth)
        result["sampling"].append(row)
        tell(
            f"sampling, {batch} at once: {row['tokens_per_second']:,.0f} tokens/s; "
            f"decoding alone {row['decoded_per_second']:,.0f}, {row['share_of_ceiling']:.0%} of the matrix products alone "
            f"({row['share_of_laid_out_ceiling']:.0%} of those with weights laid out), "
            f"{row['share_of_bandwidth']:.0%} of the bandwidth limit"
        )
    for kind in ("sft", "rl"):
        row = training(policy, kind, workload, flops, torchs)
        result["training"].append(row)
        tell(
            f"training, {kind}: {row['tokens_per_second']:,.0f} response tokens/s ({row['stream_tokens']:,} packed tokens, "
            f"{row['targets']:,} of them trained); {row['share_of_peak']:.0%} of the matrix peak, "
            f"{row['share_of_torch_peak']:.0%} of torch's"
        )
    return result


def sampling(policy: Policy, batch: int, workload: Workload, bandwidth: float) -> dict[str, Any]:
    """Sampling `batch` responses of equal length at once, in groups of 8 where there are so many.

    "tokens_per_second" is of all of it; "decoded_per_second" of the decoding steps alone, without prompts and the weights'
    laying out. The shares are the latter's.
    """
    from reasonloop.bench import ceilings
    from reasonloop.config import Sampling
    from reasonloop.engine.protocol import Address, Prompt
    from reasonloop.engine.team import TeamEngine

    rng = np.random.default_rng(0)
    group = GROUP if batch % GROUP == 0 else 1
    options = Sampling(max_tokens=workload.response, slots=batch)
    lengths = np.full(batch, workload.response)
    prompts = [Prompt(str(i), random_tokens(rng, policy, workload.prompt)) for i in range(batch // group)]

    with closing(TeamEngine()) as engine:
        engine.load(policy)

        steps: list[float] = []

        def run() -> None:
            steps.append(decoding_step(engine, prompts, group, options, Address(0, "bench"), lengths))

        seconds = median_seconds(run, workload.seconds)
    rate = batch / statistics.median(steps[1:])  # the first is the warm-up's
    ceiling = ceilings.decoding_ceiling(policy.model, batch)
    laid_out = ceilings.decoding_ceiling(policy.model, batch, laid_out=True)
    element = policy.head().weight.element_size()
    read = ceilings.Cost.of(policy.model).decoding_bytes(batch, workload.prompt + workload.response / 2, element)
    return {
        "batch": batch,
        "tokens_per_second": batch * workload.response / seconds,
        "decoded_per_second": rate,
        "ceiling_tokens_per_second": ceiling,
        "share_of_ceiling": rate / ceiling,
        "laid_out_ceiling_tokens_per_second": laid_out,
        "share_of_laid_out_ceiling": rate / laid_out,
        "share_of_bandwidth": rate / batch * read / bandwidth,
    }


def decoding_step(
    engine: Engine, prompts: list[Prompt], n: int, options: Sampling, address: Address, lengths: np.ndarray
) -> float:
    """Samples, and returns the mean seconds of a decoding step: from the end of the first to that of the last."""
    ends: list[float] = []
    engine.sample(prompts, n, options, address, lengths=lengths, on_tokens=lambda _: ends.append(time.perf_counter()))
    return (ends[-1] - ends[0]) / (len(ends) - 1)


def training(policy: Policy, kind: str, workload: Workload, peak: float, torchs: float) -> dict[str, Any]:
    """The learner's whole update on one batch; `kind` is "sft" or "rl". Learning rate 0: the weights stay. Its share of the
    matrix `peak`, and of `torchs` own."""
    from reasonloop.config import Optimizer, Sampling
    from reasonloop.learner.learner import Learner
    from reasonloop.learner.losses import OBJECTIVES

    examples = examples_for(policy, kind, workload)
    options = Optimizer(microbatch_tokens=workload.context or Optimizer().microbatch_tokens)
    learner = Learner(policy, options, Sampling())
    seconds = median_seconds(lambda: learner.update(examples, 0.0, OBJECTIVES["dapo"]), workload.seconds)
    stream_tokens, flops = packed_work(policy, examples, options.microbatch_tokens)
    targets = sum(len(example.response) for example in examples)
    return {
        "kind": kind,
        "stream_tokens": stream_tokens,
        "targets": targets,
        "tokens_per_second": targets / seconds,
        "flops": flops,
        "share_of_peak": flops / seconds / peak,
        "share_of_torch_peak": flops / seconds / torchs,
    }


def packed_work(policy: Policy, examples: Sequence[Example], microbatch_tokens: int) -> tuple[int, float]:
    """Packed tokens of an update, and the floating point operations that it needs (`ceilings.stream_flops`)."""
    from reasonloop.bench import ceilings
    from reasonloop.policy.stream import pack, split_by_tokens

    prompts, responses = [example.prompt for example in examples], [example.response for example in examples]
    cost, tokens, flops = ceilings.Cost.of(policy.model), 0, 0.0
    for members in split_by_tokens(prompts, responses, microbatch_tokens):
        stream = pack([prompts[i] for i in members], [responses[i] for i in members])
        tokens += len(stream.tokens)
        flops += ceilings.stream_flops(cost, stream)
    return tokens, flops


def examples_for(policy: Policy, kind: str, workload: Workload) -> list[Example]:
    """A training batch of random tokens; `kind` is "sft" or "rl"."""
    from reasonloop.learner.batch import Example, supervised

    rng = np.random.default_rng(1)
    pairs = (
        _one_stream(rng, policy, kind, workload.context) if workload.context else _pairs(rng, policy, kind, workload)
    )
    if kind == "sft":
        return supervised(pairs)
    total = sum(len(response) for _, response in pairs)
    return [
        Example(
            prompt,
            response,
            policy_weight=1 / total,
            advantage=float(rng.choice([-1.0, 1.0])),
            behaviour=np.full(len(response), -1.0, np.float32),
        )
        for prompt, response in pairs
    ]


Pairs = list[tuple[np.ndarray, np.ndarray]]


def _pairs(rng: np.random.Generator, policy: Policy, kind: str, workload: Workload) -> Pairs:
    count = workload.groups * GROUP
    each = GROUP if kind == "rl" else 1
    prompts = [random_tokens(rng, policy, workload.prompt) for _ in range(count // each)]
    longest = min(4 * workload.response, policy.context_length - workload.prompt)
    lengths = long_tailed(rng, count, workload.response, longest)
    return [(prompts[i // each], random_tokens(rng, policy, int(length))) for i, length in enumerate(lengths)]


def _one_stream(rng: np.random.Generator, policy: Policy, kind: str, context: int) -> Pairs:
    """Packs to exactly `context` tokens: a response's last token is a target only, and not in the stream."""
    prompt = random_tokens(rng, policy, 1 if kind == "sft" else context // (GROUP + 1))
    parts = np.array_split(np.arange(context - len(prompt)), GROUP if kind == "rl" else 1)
    return [(prompt, random_tokens(rng, policy, len(part) + 1)) for part in parts]


def random_tokens(rng: np.random.Generator, policy: Policy, length: int) -> np.ndarray:
    """int32 [length]"""
    return rng.integers(0, policy.head().weight.shape[0], length).astype(np.int32)


def median_seconds(run: Callable[[], Any], budget: float) -> float:
    """The median of the runs that begin within `budget` seconds (at least one), after a warm-up."""
    run()
    times = [timed(run)]
    while sum(times) < budget:
        times.append(timed(run))
    return statistics.median(times)


def timed(run: Callable[[], Any]) -> float:
    """Seconds of one call. Samples and updates end in numbers on the CPU, so that a GPU has finished too."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _check(policy: Policy, workload: Workload) -> None:
    needed = max(workload.prompt + workload.response, workload.context)
    if needed > policy.context_length:
        raise InputError(f"the workload needs a context of {needed} tokens, the model's has {policy.context_length}")


def write(result: dict[str, Any], file: Path) -> None:
    file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
