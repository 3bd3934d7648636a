"""What must hold on a GPU: `python -m pytest tests/gpu`. See conftest.py for what stands in for one."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recorder import Recorder
from sampler import Sampler, of_slots, prompt
from tiny_models import pairs, tiny_policy

import reasonloop.engine.decoder as decoder
from reasonloop.config import Optimizer, Sampling
from reasonloop.engine.native import NativeEngine
from reasonloop.learner.batch import Example, supervised
from reasonloop.learner.local import LocalLearner
from reasonloop.learner.losses import OBJECTIVES, Objective
from reasonloop.policy import norms, varlen
from reasonloop.policy.policy import Policy
from reasonloop.records import Rollout

pytestmark = pytest.mark.gpu

SAMPLING = Sampling(max_tokens=24)
DTYPES = ("float32", "bfloat16")
CLOSE = {"float32": 2e-4, "bfloat16": 0.05}
"""Mean difference of log-probs: to rounding; bfloat16 has 8 bits, and logits are a few units"""


def on(device: str, dtype: str = "float32", family: str = "qwen3", **changes: Any) -> Policy:
    """A small random model there, of heads as flash attention takes them."""
    made = tiny_policy(family, head_dim=32, **changes)
    policy = Policy(made.model.to(device), made.codec.tokenizer)
    policy.compute_in(dtype)
    return policy


def engine_of(device: str, slots: int = 8) -> NativeEngine:
    return of_slots(slots, **({"capture": Recorder()} if device == "cpu" else {}))


def sampled(policy: Policy, engine: NativeEngine, seed: int = 2, n: int = 3) -> list[Rollout]:
    asked = [prompt(str(i), p) for i, p in enumerate(pairs(seed, groups=5, longest=20)[0][::2])]
    return Sampler(policy, engine).sample(asked, n, SAMPLING)


def captured(engine: NativeEngine) -> int:
    assert isinstance(engine._decoder, decoder.ModuleDecoder)
    return len(engine._decoder._captured)


def differences(policy: Policy, rollouts: Sequence[Rollout]) -> np.ndarray:
    """Sampled less scored log-probs."""
    prompts, responses = [r.prompt_tokens for r in rollouts], [r.response_tokens for r in rollouts]
    scored = policy.score(prompts, responses, SAMPLING)
    return np.concatenate([r.logprobs - s for r, s in zip(rollouts, scored, strict=True)])


@pytest.mark.parametrize("dtype", DTYPES)
def test_sampled_log_probs_are_the_scored_ones(device: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "WORTH", 2)
    policy, engine = on(device, dtype), engine_of(device)
    difference = differences(policy, sampled(policy, engine))
    assert captured(engine) > 0
    assert np.abs(difference).mean() < CLOSE[dtype]
    assert abs(difference.mean()) < CLOSE[dtype] / 2


def test_graphs_sample_what_plain_steps_do(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32, where a draw on a border is rare."""
    monkeypatch.setattr(decoder, "WORTH", 10**9)
    policy, plain = on(device), engine_of(device)
    expected = sampled(policy, plain)
    assert captured(plain) == 0
    monkeypatch.setattr(decoder, "WORTH", 1)
    engine = engine_of(device)
    got = sampled(policy, engine)
    assert captured(engine) > 0
    same = [a.response_tokens.tolist() == b.response_tokens.tolist() for a, b in zip(got, expected, strict=True)]
    assert np.mean(same) >= 0.9
    for a, b in zip(got, expected, strict=True):
        if a.response_tokens.tolist() == b.response_tokens.tolist():
            np.testing.assert_allclose(a.logprobs, b.logprobs, rtol=0, atol=1e-3)


def test_kept_graphs_see_updated_weights(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "WORTH", 1)
    policy, engine = on(device, "bfloat16"), engine_of(device)
    learner = LocalLearner(policy, Optimizer(), SAMPLING)
    sampled(policy, engine)
    for seed in range(2):
        engine.rest()
        kept = engine._decoder
        assert kept is not None
        learner.update(batch(seed), 3e-3)
        difference = differences(policy, sampled(policy, engine, seed))
        assert engine._decoder is kept
        assert np.abs(difference).mean() < CLOSE["bfloat16"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_packed_log_probs_are_those_of_each_alone(device: str, dtype: str) -> None:
    policy = on(device, dtype)
    prompts, responses = pairs(3, groups=4, size=3, longest=40)
    together = policy.score(prompts, responses, Sampling())
    for prompt_, response, ours in zip(prompts, responses, together, strict=True):
        (alone,) = policy.score([prompt_], [response], Sampling())
        assert np.abs(ours - alone).mean() < CLOSE[dtype]


def batch(seed: int, objective: Objective | None = None) -> list[Example]:
    prompts, responses = pairs(seed, groups=4, size=3, longest=30)
    if objective is None:
        return supervised(list(zip(prompts, responses, strict=True)))
    rng, total = np.random.default_rng(seed), sum(map(len, responses))
    return [
        Example(
            *pair,
            policy_weight=np.full(len(pair[1]), 1 / total),
            advantage=np.full(len(pair[1]), rng.choice([-1.0, 1.0])),
            behaviour=np.full(len(pair[1]), -5.0, np.float32),
        )
        for pair in zip(prompts, responses, strict=True)
    ]


def gradient(policy: Policy, objective: Objective | None) -> tuple[dict[str, float], torch.Tensor]:
    """What an update says, and its gradient, float32 on the CPU."""
    learner, found = LocalLearner(policy, Optimizer(grad_clip=1e9), Sampling()), []
    step = learner.optimizer.step

    def spy() -> None:
        found.extend(p.grad.float().cpu().flatten() for p in learner.parameters if p.grad is not None)
        step()

    learner.optimizer.step = spy  # type: ignore[method-assign, assignment]
    measured = learner.update(batch(1, objective), 0.0, objective)
    return measured, torch.cat(found)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["sft", "dapo", "gspo"])
@pytest.mark.parametrize("family", ["qwen3", "mistral_window"])
def test_losses_and_gradients_are_the_cpus(device: str, dtype: str, name: str, family: str) -> None:
    """Against float32 on the CPU, from the same weights rounded to what the GPU computes in."""
    objective = OBJECTIVES.get(name)
    reference = on("cpu", dtype, family)
    reference.compute_in("float32")
    expected, exact = gradient(reference, objective)
    measured, ours = gradient(on(device, dtype, family), objective)
    tight = dtype == "float32"
    for key in ("loss", "entropy", "logprob", "grad_norm"):
        assert measured[key] == pytest.approx(expected[key], rel=1e-3 if tight else 0.05, abs=1e-4 if tight else 0.02)
    assert torch.cosine_similarity(ours, exact, dim=0) > (0.9999 if tight else 0.98)


def test_flash_attention_is_sound_here(device: str) -> None:
    if device == "cpu":
        pytest.skip("a stand-in: tests/policy/test_varlen.py")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for heads, kv_heads, dim in ((16, 8, 128), (14, 2, 64), (9, 3, 64), (5, 5, 32), (8, 4, 256)):
            for window in (False, True):
                assert varlen.sound(torch.device("cuda", 0), torch.bfloat16, heads, kv_heads, dim, window)


def test_norms_are_fused_there(device: str) -> None:
    policy = on(device)
    if device == "cpu":
        norms.fuse(policy.model)
    assert sum(getattr(module, "fused", False) for module in policy.model.modules()) == 9


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_learner_goes_on_where_it_stopped(device: str, dtype: str, tmp_path: Path) -> None:
    straight = LocalLearner(on(device, dtype), Optimizer(), Sampling())
    for seed in range(2):
        straight.update(batch(seed), 1e-3)
    (tmp_path / "model").mkdir()
    straight.save(tmp_path / "model")
    continued = LocalLearner(Policy.load(tmp_path / "model", device, dtype), Optimizer(), Sampling())
    continued.load(tmp_path / "model")
    assert continued.updates == straight.updates == 2
    for seed in range(2, 4):
        ours, theirs = (learner.update(batch(seed), 1e-3) for learner in (continued, straight))
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3 if dtype == "float32" else 0.02)
    for ours, theirs in zip(continued.parameters, straight.parameters, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=3e-3)
