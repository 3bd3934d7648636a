"""`reasonloop bench`: sampled and trained tokens/s of a model on this machine, beside what the machine could do.

Sampling: random prompts, responses of forced length, in groups of 8 behind a shared prompt. Training: the learner's whole
update (forward, backward, AdamW) on one batch of SFT and one of RL, both without padding and with long-tailed lengths.
Shares of peak count only the floating point operations that the batch needs (`policy.shape.Cost`).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from reasonloop.bench import ceilings
from reasonloop.bench.result import machine_and_versions
from reasonloop.config import Optimizer, Sampling
from reasonloop.engine.native import NativeEngine
from reasonloop.engine.protocol import Request
from reasonloop.errors import InputError
from reasonloop.learner.batch import Example, supervised
from reasonloop.learner.local import LocalLearner
from reasonloop.learner.losses import OBJECTIVES
from reasonloop.machine.threads import prepare_threads
from reasonloop.policy.loading import resolve_device
from reasonloop.policy.policy import Policy, Weights
from reasonloop.policy.scorer import Scorer
from reasonloop.policy.stream import pack, split_by_tokens
from reasonloop.records import Place

GROUP = 8
NO_PEER: dict[str, Any] = {"pairs": [], "median_ratio": None, "peer": None}
"""What a benchmark's result file has, although there is no peer here"""
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
    """Measures, and returns {"machine", "versions", "workload", "model", "peak", "sampling": [...], "training": [...]} and
    NO_PEER.

    `tell` gets a line as soon as there is one. Raises InputError where the model's context can't hold the workload.
    """
    workload = workload or Workload()
    used = prepare_threads(threads)
    device = resolve_device(device)
    policy = load(model, layout, device, dtype)
    needed, context = max(workload.prompt + workload.response, workload.context), policy.codec.context_length
    if needed > context:
        raise InputError(f"the workload needs a context of {needed} tokens, the model's has {context}")
    machine, versions = machine_and_versions(used)
    if device == "cuda":
        machine["gpu"] = torch.cuda.get_device_name()
    cost, peak = ceilings.cost_of(policy.model), ceilings.peaks(policy.model, getattr(torch, dtype))
    name, weights = layout or model, cost.body + cost.head
    tell(
        f"{name}: {weights / 1e6:.1f} M weights in matrix products, {dtype} on {device}, {used} threads; "
        f"matrix peak {peak['flops'] / 1e9:,.0f} GFLOP/s (torch's {peak['torch_flops'] / 1e9:,.0f}), "
        f"bandwidth {peak['bytes_per_second'] / 1e9:,.0f} GB/s"
    )
    sampled, trained = [], []
    for batch in workload.batches:
        sampled.append(row := sampling(policy, batch, workload, peak))
        tell(
            f"sampling, {batch} at once: {row['tokens_per_second']:,.0f} tokens/s; "
            f"decoding alone {row['decoded_per_second']:,.0f}, {row['share_of_ceiling']:.0%} of the matrix products alone "
            f"({row['share_of_laid_out_ceiling']:.0%} of those with weights laid out), "
            f"{row['share_of_bandwidth']:.0%} of the bandwidth limit"
        )
    for kind in ("sft", "rl"):
        trained.append(row := training(policy, kind, workload, peak))
        tell(
            f"training, {kind}: {row['tokens_per_second']:,.0f} response tokens/s ({row['stream_tokens']:,} packed tokens, "
            f"{row['targets']:,} of them trained); {row['share_of_peak']:.0%} of the matrix peak, "
            f"{row['share_of_torch_peak']:.0%} of torch's"
        )
    return {
        "machine": machine,
        "versions": versions,
        **NO_PEER,
        "workload": asdict(workload),
        "model": {"name": name, "weights": weights, "dtype": dtype, "device": device},
        "peak": peak,
        "sampling": sampled,
        "training": trained,
    }


def load(model: str, layout: str | None, device: str, dtype: str = "float32") -> Policy:
    """The policy to measure: `model` as everywhere, or random weights in one of LAYOUTS (with a tokenizer of no use)."""
    if layout is None:
        return Policy.load(model, device, dtype)
    from transformers import AutoModelForCausalLM, Qwen3Config

    from reasonloop.tasks.countdown.tokenizer import build_tokenizer

    if layout not in LAYOUTS:
        raise InputError(f"--layout {layout}: unknown; expected one of {', '.join(LAYOUTS)}")
    torch.manual_seed(0)
    with torch.device(device):
        policy = Policy(AutoModelForCausalLM.from_config(Qwen3Config(**LAYOUTS[layout])), build_tokenizer())
    policy.scorer = Scorer(policy.model)  # as with a tokenizer of as many tokens
    policy.compute_in(dtype)
    return policy


def sampling(policy: Policy, batch: int, workload: Workload, peak: dict[str, float]) -> dict[str, Any]:
    """Sampling `batch` responses of equal length at once, in groups of 8 where there are so many.

    "tokens_per_second" is of all of it; "decoded_per_second" of the decoding steps alone, without prompts and the weights'
    laying out. The shares are the latter's.
    """
    rng = np.random.default_rng(0)
    group = GROUP if batch % GROUP == 0 else 1
    prompts = [random_tokens(rng, policy, workload.prompt) for _ in range(batch // group)]
    asked = forced(prompts, np.full(batch, workload.response))
    steps: list[float] = []
    engine = NativeEngine(slots=len(asked))
    seconds = median_seconds(lambda: steps.append(decoding_step(policy, asked, engine, len(steps))), workload.seconds)
    rate = batch / statistics.median(steps[1:])  # the first is the warm-up's
    ceiling, laid_out = (ceilings.decoding_ceiling(policy.model, batch, laid_out=way) for way in (False, True))
    element = next(policy.model.parameters()).element_size()
    read = ceilings.cost_of(policy.model).decoding_bytes(batch, workload.prompt + workload.response / 2, element)
    return {
        "batch": batch,
        "tokens_per_second": batch * workload.response / seconds,
        "decoded_per_second": rate,
        "ceiling_tokens_per_second": ceiling,
        "share_of_ceiling": rate / ceiling,
        "laid_out_ceiling_tokens_per_second": laid_out,
        "share_of_laid_out_ceiling": rate / laid_out,
        "share_of_bandwidth": rate / batch * read / peak["bytes_per_second"],
    }


def forced(prompts: Sequence[np.ndarray], lengths: np.ndarray, turn: int = 0) -> list[Request]:
    """Requests for responses of exactly these lengths, int [prompts x n], n in a row for each prompt; another `turn` draws
    other tokens."""
    n, place = len(lengths) // len(prompts), Place("bench", "bench", step=turn)
    return [
        Request(prompts[i // n], place.draw(0, str(i // n), i % n), length=int(length))
        for i, length in enumerate(lengths)
    ]


def decoding_step(policy: Policy, asked: Sequence[Request], engine: NativeEngine, version: int = 0) -> float:
    """Samples all at once, and returns the mean seconds of a decoding step: from the end of the first to the last's. With
    another `version` the weights are taken for changed, as they are in a run."""
    ends: list[float] = []
    engine.on_step = lambda _: ends.append(time.perf_counter())
    engine.load(Weights(version, policy))
    engine.generate(asked, Sampling(max_tokens=max(request.length for request in asked)))
    return (ends[-1] - ends[0]) / (len(ends) - 1)


def training(policy: Policy, kind: str, workload: Workload, peak: dict[str, float]) -> dict[str, Any]:
    """The learner's whole update on one batch; `kind` is "sft" or "rl". Learning rate 0: the weights stay."""
    examples = examples_for(policy, kind, workload)
    options = Optimizer(microbatch_tokens=workload.context or Optimizer().microbatch_tokens)
    learner = LocalLearner(policy, options, Sampling())
    seconds = median_seconds(lambda: learner.update(examples, 0.0, OBJECTIVES["dapo"]), workload.seconds)
    stream_tokens, flops = packed_work(policy, examples, options.microbatch_tokens)
    targets = sum(len(example.response) for example in examples)
    return {
        "kind": kind,
        "stream_tokens": stream_tokens,
        "targets": targets,
        "tokens_per_second": targets / seconds,
        "flops": flops,
        "share_of_peak": flops / seconds / peak["flops"],
        "share_of_torch_peak": flops / seconds / peak["torch_flops"],
    }


def packed_work(policy: Policy, examples: Sequence[Example], microbatch_tokens: int) -> tuple[int, float]:
    """Packed tokens of an update, and the floating point operations that it needs (`ceilings.stream_flops`)."""
    prompts, responses = [example.prompt for example in examples], [example.response for example in examples]
    cost, tokens, flops = ceilings.cost_of(policy.model), 0, 0.0
    for members in split_by_tokens(prompts, responses, microbatch_tokens):
        stream = pack([prompts[i] for i in members], [responses[i] for i in members])
        tokens += len(stream.tokens)
        flops += ceilings.stream_flops(cost, stream)
    return tokens, flops


def examples_for(policy: Policy, kind: str, workload: Workload) -> list[Example]:
    """A training batch of random tokens; `kind` is "sft" or "rl"."""
    rng, group = np.random.default_rng(1), GROUP if kind == "rl" else 1
    if workload.context:  # packs to exactly so many: a response's last token is a target only, and not in the stream
        prompts = [random_tokens(rng, policy, workload.context // (GROUP + 1) if kind == "rl" else 1)]
        parts = np.array_split(np.arange(workload.context - len(prompts[0])), group)
        lengths = np.array([len(part) + 1 for part in parts])
    else:
        count = workload.groups * GROUP
        prompts = [random_tokens(rng, policy, workload.prompt) for _ in range(count // group)]
        longest = min(4 * workload.response, policy.codec.context_length - workload.prompt)
        lengths = long_tailed(rng, count, workload.response, longest)
    pairs = [(prompts[i // group], random_tokens(rng, policy, int(length))) for i, length in enumerate(lengths)]
    if kind == "sft":
        return supervised(pairs)
    total = int(lengths.sum())
    return [
        Example(
            prompt,
            response,
            policy_weight=np.full(len(response), 1 / total),
            advantage=np.full(len(response), rng.choice([-1.0, 1.0])),
            behaviour=np.full(len(response), -1.0, np.float32),
        )
        for prompt, response in pairs
    ]


def long_tailed(rng: np.random.Generator, count: int, mean: float, longest: int) -> np.ndarray:
    """int64 [count] response lengths in [1, longest] from a log-normal with sigma 0.8: most short, a few stragglers.

    `mean` is the distribution's before it is cut at `longest`.
    """
    drawn = rng.lognormal(np.log(mean) - 0.32, 0.8, count)
    return np.clip(np.rint(drawn), 1, longest).astype(np.int64)


def random_tokens(rng: np.random.Generator, policy: Policy, length: int) -> np.ndarray:
    """int32 [length]"""
    return rng.integers(0, policy.vocabulary, length).astype(np.int32)


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
