"""Every causal family of transformers as a tiny random model: what is sampled, scored and learned against the model's own
forward pass of each sequence alone, in transformers' own attention.

    python benchmarks/families.py                  all of them, into benchmarks/results/families.json
    python benchmarks/families.py llama qwen2_moe  some again, into its rows
"""

from __future__ import annotations

import copy
import json
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from family_models import LEFT_OUT, VOCABULARY, config_of, made, names
from pairs import write

from reasonloop.config import Optimizer, Sampling
from reasonloop.engine.native import NativeEngine
from reasonloop.engine.protocol import Completion, Request
from reasonloop.errors import InputError, RunError
from reasonloop.learner.batch import Example
from reasonloop.learner.local import LocalLearner
from reasonloop.policy.loading import quiet
from reasonloop.policy.policy import Policy, Weights
from reasonloop.policy.stream import pack
from reasonloop.tasks.countdown.tokenizer import build_tokenizer

RESULTS = Path(__file__).parent / "results" / "families.json"
LENGTHS, TOKENS = (1, 9, 20, 50), 30
"""Of the prompts, and of the responses: beyond every window, chunk and choice of `family_models`"""
WRONG = 1e-3
"""Nats: the most that a log-prob may differ, where the model's own rounding is finer"""
ROUNDING = 5e-5
"""Nats: beyond it the model's own rounding is looked at, in float64"""
SECONDS = 900
PAIRS = list[tuple[np.ndarray, np.ndarray]]


def check(name: str, folder: Path) -> dict[str, Any]:
    """What there is to say of a family: its path and differences, or why it is refused."""
    config = config_of(name)
    made(config).save_pretrained(folder)
    build_tokenizer(VOCABULARY - 19).save_pretrained(folder)
    try:
        policy = Policy.load(folder, "cpu", "float32")
    except InputError as error:
        return {"verdict": "refused", "reason": str(error).partition(": ")[2]}
    plain = _plain(folder)
    found: dict[str, Any] = {"path": policy.path, "reason": policy.reason}
    pairs: PAIRS = []
    sampled: list[np.ndarray] = []
    sampling, lengths = Sampling(max_tokens=TOKENS), [LENGTHS]
    try:
        _sampled(policy, sampling, 3, LENGTHS[-1:])
    except InputError as error:
        found["limit"] = str(error).rpartition(": ")[2]
        lengths = [LENGTHS[:-1], (70, 75)]
    for some in lengths:
        done = _sampled(policy, sampling, 3, some)
        pairs += [pair for pair, _ in done]
        sampled += [completion.logprobs for _, completion in done]
    tempered = Sampling(max_tokens=TOKENS, temperature=0.7)
    found["tempered"] = _worst(policy, plain, _sampled(policy, tempered, 256, lengths[0]), tempered)
    scored = policy.score([p for p, _ in pairs], [r for _, r in pairs], sampling)
    expected = [_alone(plain, *pair) for pair in pairs]
    found |= {"sampled": _difference(sampled, expected), "scored": _difference(scored, expected), "noise": 0.0}
    if max(found["sampled"], found["scored"]) > ROUNDING and _doubles(plain, pairs[0]):
        finer = [_alone(plain.double(), *pair) for pair in pairs]
        plain = plain.float()
        found |= {"sampled": _difference(sampled, finer), "scored": _difference(scored, finer)}
        found["noise"] = _difference(expected, finer)
    gradient, own = _gradients(policy, plain)
    found |= {
        "gradient": gradient,
        "gradient noise": own,
        "k1": _checkpointed(policy, pairs, sampled),
        "product": _product(policy, folder),
    }
    exact = all(found[name] < max(WRONG, 20 * found["noise"]) for name in ("sampled", "scored", "tempered"))
    exact &= gradient < max(WRONG, 20 * own)
    found["verdict"] = "exact" if exact and abs(found["k1"]) < WRONG and found["product"] == "same" else "wrong"
    return found


def _plain(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").float().eval()


def _sampled(
    policy: Policy, sampling: Sampling, slots: int, lengths: Sequence[int]
) -> list[tuple[tuple[np.ndarray, np.ndarray], Completion]]:
    """(prompt, response) and completion of groups of two, behind prompts of these lengths, two of a common beginning."""
    rng = np.random.default_rng(0)
    prompts = [rng.integers(4, VOCABULARY, n).astype(np.int32) for n in lengths]
    if min(lengths) < 20:
        beginning = rng.integers(4, VOCABULARY, 12).astype(np.int32)
        prompts += [np.concatenate([beginning, rng.integers(4, VOCABULARY, n).astype(np.int32)]) for n in (3, 6)]
    engine = NativeEngine(slots)
    engine.load(Weights(policy=policy))
    requests = [Request(p, draw=2 * i + k, length=TOKENS) for i, p in enumerate(prompts) for k in range(2)]
    completions = engine.generate(requests, sampling)
    return [((r.prompt, c.tokens), c) for r, c in zip(requests, completions, strict=True)]


def _worst(policy: Policy, plain: Any, done: Any, sampling: Sampling) -> float:
    """Of sampling and scoring at another temperature."""
    expected = [_alone(plain, *pair, sampling.temperature) for pair, _ in done]
    scored = policy.score([p for (p, _), _ in done], [r for (_, r), _ in done], sampling)
    return max(_difference([completion.logprobs for _, completion in done], expected), _difference(scored, expected))


def _alone(model: Any, prompt: np.ndarray, response: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """float64 [T]: log-probs of a response by the model's own forward pass of this sequence alone."""
    with torch.no_grad():
        return _logprobs(model, prompt, response, temperature).numpy()


def _logprobs(model: Any, prompt: np.ndarray, response: np.ndarray, temperature: float = 1.0) -> torch.Tensor:
    ids = torch.from_numpy(np.concatenate([prompt, response]).astype(np.int64))
    logits = model(input_ids=ids[None], use_cache=False).logits[0, len(prompt) - 1 : -1].double() / temperature
    return torch.log_softmax(logits, -1).gather(1, ids[len(prompt) :, None])[:, 0]


def _doubles(model: Any, pair: tuple[np.ndarray, np.ndarray]) -> bool:
    """Whether it computes in float64, too."""
    try:
        return bool(np.isfinite(_alone(copy.deepcopy(model).double(), *pair)).all())
    except RuntimeError:
        return False


def _difference(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    gaps = [np.abs(a - b).max() for a, b in zip(found, expected, strict=True)]
    return float(np.nan_to_num(max(gaps), nan=np.inf))


Gradients = dict[str, torch.Tensor]


def _gradients(policy: Policy, plain: Any) -> tuple[float, float]:
    """The largest difference of a parameter's gradient, of the largest of its entries, and float32's own in the plain
    passes where it was looked at. Tokens are random: those that were sampled may be certain, and have none."""
    rng = np.random.default_rng(2)
    drawn = [[rng.integers(4, VOCABULARY, n).astype(np.int32) for n in lengths] for lengths in ((9, 30), (20, 30))]
    pairs = [(drawn[0][0], drawn[0][1]), (drawn[0][0], drawn[1][1]), (drawn[1][0], drawn[1][1])]
    stream = pack([p for p, _ in pairs], [r for _, r in pairs])
    weights = np.random.default_rng(1).normal(size=len(stream.targets)).astype(np.float32)
    policy.model.zero_grad()
    (policy.scorer(stream, Sampling()).logprobs * torch.from_numpy(weights)).sum().backward()
    ours = _taken(policy.model)
    parts = np.split(weights, np.cumsum([len(r) for _, r in pairs])[:-1])
    expected = _plain_gradients(plain, pairs, parts)
    worst = _apart(ours, expected)
    if worst < ROUNDING or not _doubles(plain, pairs[0]):
        return worst, 0.0
    finer = _plain_gradients(copy.deepcopy(plain).double(), pairs, parts)
    return _apart(ours, finer), _apart(expected, finer)


def _plain_gradients(plain: Any, pairs: PAIRS, parts: Sequence[np.ndarray]) -> Gradients:
    plain.zero_grad()
    for pair, part in zip(pairs, parts, strict=True):
        (_logprobs(plain, *pair) * torch.from_numpy(part)).sum().backward()
    return _taken(plain)


def _taken(model: Any) -> Gradients:
    found = {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    return found


def _apart(found: Gradients, expected: Gradients) -> float:
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    return max(
        float((gradient - expected[name]).abs().max() / max(float(expected[name].abs().max()), 1e-3 * largest))
        for name, gradient in found.items()
    )


def _checkpointed(policy: Policy, pairs: PAIRS, sampled: Sequence[np.ndarray]) -> float:
    """Nats a token between what was sampled and what a learner with gradient checkpointing computes before its first
    update."""
    learner = LocalLearner(policy.copy(), Optimizer(), Sampling(), checkpointing=True)
    ones = [np.ones(len(response), np.float32) for _, response in pairs]
    examples = [
        Example(prompt, response, policy_weight=one / len(pairs), advantage=one, behaviour=logprobs)
        for (prompt, response), one, logprobs in zip(pairs, ones, sampled, strict=True)
    ]
    return learner.update(examples, 1e-4)["k1"]


def _product(policy: Policy, folder: Path) -> str:
    """ "same" where the saved product has the weights, and generates what its source generates; else what is other."""
    saved = folder.with_name("product")
    policy.save(saved)
    ids = torch.arange(4, 13)[None]
    models = [transformers.AutoModelForCausalLM.from_pretrained(at).float().eval() for at in (folder, saved)]
    weights = [model.state_dict() for model in models]
    if weights[0].keys() != weights[1].keys() or any(not torch.equal(weights[0][n], weights[1][n]) for n in weights[0]):
        return "other weights"
    texts = []
    for model in models:
        try:
            texts.append(model.generate(input_ids=ids, max_new_tokens=12, do_sample=False)[0].tolist())
        except Exception as error:  # transformers' own `generate`, which has to do the same with both
            texts.append(f"{type(error).__name__}: {error}")
    return "same" if texts[0] == texts[1] else "generates something else"


@contextmanager
def _in_time(seconds: int) -> Iterator[None]:
    def late(*_: Any) -> None:
        raise TimeoutError(f"more than {seconds} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def judged(name: str) -> dict[str, Any]:
    """`check`, whatever happens in it."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with _in_time(SECONDS):
                found = check(name, Path(place) / "model")
        except (InputError, RunError) as error:
            found = {"verdict": "refused", "reason": str(error)}
        except Exception as error:
            found = {"verdict": "crashed", "reason": f"{type(error).__name__}: {str(error)[:200]}"}
    rounded = {key: float(f"{value:.1e}") if isinstance(value, float) else value for key, value in found.items()}
    return {"name": name, **rounded, "seconds": round(time.perf_counter() - began, 1)}


def _begin() -> None:
    quiet()
    torch.set_num_threads(1)


def main() -> int:
    chosen = sys.argv[1:]
    rows = []
    with ProcessPoolExecutor(os.cpu_count() or 1, get_context("spawn"), _begin) as pool:
        for row in pool.map(judged, chosen or names()):
            rows.append(row)
            print(json.dumps(row), flush=True)
    if chosen:
        made_before = {row["name"]: row for row in json.loads(RESULTS.read_text(encoding="utf-8"))["families"]}
        rows = [*(made_before | {row["name"]: row for row in rows}).values()]
    write({"families": rows, "left out": LEFT_OUT}, RESULTS, threads=1)
    return int(any(row["verdict"] in ("wrong", "crashed") for row in rows))


if __name__ == "__main__":
    sys.exit(main())
