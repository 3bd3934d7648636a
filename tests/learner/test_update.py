"""One update: the same whatever way it is cut and ordered, with correct ratios over several updates of a step."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny_policy, tokens

from reasonloop.config import Optimizer, Sampling
from reasonloop.engine.native import NativeEngine
from reasonloop.engine.protocol import Address, Prompt
from reasonloop.learner.batch import Example, reinforced, supervised, with_reference
from reasonloop.learner.learner import Learner
from reasonloop.learner.losses import OBJECTIVES, Objective
from reasonloop.policy.policy import Policy
from reasonloop.records import Rollout

SAMPLING = Sampling(max_tokens=16, slots=16, stop=("answer", "back", "="))
UNCLIPPED = 1e9
GROUP_OBJECTIVES = sorted(OBJECTIVES.keys() - {"ppo"})  # PPO's updates: test_ppo.py


def sampled_groups(policy: Policy, problems: int = 3, size: int = 4, sampling: Sampling = SAMPLING) -> list[Any]:
    """Groups from the policy itself; every second response is rewarded."""
    rng = np.random.default_rng(1)
    prompts = [Prompt(f"p{i}", tokens(rng, int(rng.integers(2, 9)))) for i in range(problems)]
    sampler = NativeEngine()
    sampler.load(policy)
    rollouts = sampler.sample(prompts, size, sampling, Address(0, "rl"))
    for rollout in rollouts:
        object.__setattr__(rollout, "reward", float(rollout.sample % 2))
    return [rollouts[i : i + size] for i in range(0, len(rollouts), size)]


def off_policy(groups: list[list[Rollout]], drift: float) -> list[list[Rollout]]:
    moved = copy.deepcopy(groups)
    rng = np.random.default_rng(2)
    for group in moved:
        for rollout in group:
            rollout.logprobs[:] += drift * rng.normal(size=len(rollout.logprobs)).astype(np.float32)
    return moved


def gradients(
    policy: Policy, examples: list[Example], objective: Objective | None, microbatch_tokens: int, sampling: Sampling
) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Metrics and the gradient of one update; the weights stay (learning rate 0)."""
    options = Optimizer(microbatch_tokens=microbatch_tokens, grad_clip=UNCLIPPED)
    learner = Learner(policy, options, sampling)
    kept: dict[str, torch.Tensor] = {}
    step = learner.optimizer.step

    def spy() -> None:
        kept.update({n: p.grad.clone() for n, p in policy.model.named_parameters() if p.grad is not None})
        step()

    learner.optimizer.step = spy  # type: ignore[method-assign]
    metrics = learner.update(examples, 0.0, objective)
    return metrics, kept


def all_examples(policy: Policy, name: str) -> list[Example]:
    groups = sampled_groups(policy)
    drift = 1e-3 if name == "gspo" else 0.2
    if name == "sft":
        return supervised([(r.prompt_tokens, r.response_tokens) for group in groups for r in group])
    examples = reinforced(off_policy(groups, drift), OBJECTIVES[name], SAMPLING.max_tokens)
    reference = [e.behaviour + 0.3 for e in examples if e.behaviour is not None]
    return with_reference(examples, reference, 0.05)


@pytest.fixture(scope="module")
def whole(policy: Policy) -> dict[str, Any]:
    """Each objective's update in one micro-batch, in the order of sampling."""
    return {
        name: gradients(policy, all_examples(policy, name), OBJECTIVES.get(name), 1 << 20, SAMPLING)
        for name in ("sft", *GROUP_OBJECTIVES)
    }


@settings(max_examples=25)
@given(
    name=st.sampled_from(["sft", *GROUP_OBJECTIVES]),
    microbatch_tokens=st.sampled_from([1, 7, 20, 33, 64, 1 << 20]),
    order=st.permutations(range(12)),
)
def test_an_update_does_not_depend_on_how_it_is_cut_or_ordered(
    policy: Policy, whole: dict[str, Any], name: str, microbatch_tokens: int, order: list[int]
) -> None:
    examples = all_examples(policy, name)
    metrics, got = gradients(policy, [examples[i] for i in order], OBJECTIVES.get(name), microbatch_tokens, SAMPLING)
    expected_metrics, expected = whole[name]
    assert metrics == pytest.approx(expected_metrics, rel=1e-4, abs=1e-6)
    assert got.keys() == expected.keys()
    norm = expected_metrics["grad_norm"]
    assert norm > 1e-3
    for parameter in expected:
        torch.testing.assert_close(got[parameter], expected[parameter], rtol=0, atol=1e-5 * max(1.0, norm))


def test_micro_batches_really_were_cut(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The invariance above means something: small limits do run many forward passes."""
    counts: dict[int, int] = {}
    hidden = Policy.hidden
    for limit in (1, 64, 1 << 20):
        calls = []
        monkeypatch.setattr(Policy, "hidden", lambda self, *args, calls=calls: calls.append(1) or hidden(self, *args))
        gradients(policy, all_examples(policy, "dapo"), None, limit, SAMPLING)
        monkeypatch.undo()
        counts[limit] = len(calls)
    # sampling the groups takes passes of its own, the same number for each limit
    assert counts[1] - counts[1 << 20] == 11
    assert counts[1] > counts[64] > counts[1 << 20]


@pytest.mark.parametrize(
    "setting", [{}, {"temperature": 0.7}, {"top_p": 0.9}, {"temperature": 1.3, "top_k": 20, "min_p": 0.02}], ids=str
)
def test_first_update_is_on_policy_and_the_second_is_not(setting: dict[str, Any]) -> None:
    """Ratios are to the policy that sampled, under every sampling setting, not to the last update's."""
    policy = tiny_policy("llama", seed=5)
    sampling = SAMPLING.model_copy(update=setting)
    groups = sampled_groups(policy, problems=4, sampling=sampling)
    rollouts = [rollout for group in groups for rollout in group]
    prompts, responses = [r.prompt_tokens for r in rollouts], [r.response_tokens for r in rollouts]
    before = policy.score(prompts, responses, sampling)
    for rollout, logprobs in zip(rollouts, before, strict=True):
        np.testing.assert_allclose(np.exp(logprobs - rollout.logprobs), 1.0, rtol=0, atol=1e-4)
    learner = Learner(policy, Optimizer(), sampling)
    first = learner.update(reinforced(groups[:2], OBJECTIVES["dapo"], 16), 3e-3, OBJECTIVES["dapo"])
    assert abs(first["k1"]) < 1e-4
    assert first["clip_fraction"] == 0
    after = policy.score(prompts, responses, sampling)
    late = slice(len(rollouts) // 2, None)
    shares = reinforced(groups[2:], OBJECTIVES["dapo"], 16)
    second = learner.update(shares, 3e-3, OBJECTIVES["dapo"])
    ratios = [np.exp(new - r.logprobs) for new, r in zip(after[late], rollouts[late], strict=True)]
    assert max(np.abs(row - 1).max() for row in ratios) > 1e-3
    k1 = np.concatenate([r.logprobs - new for new, r in zip(after[late], rollouts[late], strict=True)]).mean()
    assert second["k1"] == pytest.approx(float(k1), abs=1e-5)
    assert second["k1"] != pytest.approx(0.0, abs=1e-4)
    cut = [
        ((row > 1.28) & (e.advantage > 0)) | ((row < 0.8) & (e.advantage < 0))
        for row, e in zip(ratios, shares, strict=True)
    ]
    assert second["clip_fraction"] == pytest.approx(float(np.concatenate(cut).mean()), abs=1e-6)


def test_metrics_are_means_over_response_tokens(policy: Policy) -> None:
    groups = sampled_groups(policy)
    rollouts = [rollout for group in groups for rollout in group]
    metrics, _ = gradients(policy, reinforced(groups, OBJECTIVES["dapo"], 16), OBJECTIVES["dapo"], 50, SAMPLING)
    everything = np.concatenate([rollout.logprobs for rollout in rollouts])
    assert metrics["tokens"] == len(everything)
    assert metrics["logprob"] == pytest.approx(float(everything.mean()), abs=1e-5)
    assert 0 < metrics["entropy"] < np.log(97)
    assert metrics["loss"] == pytest.approx(
        -sum(e.advantage * len(e.response) for e in reinforced(groups, OBJECTIVES["dapo"], 16)) / len(everything),
        abs=1e-4,
    )


def test_an_update_raises_the_reward_that_it_is_given() -> None:
    """After a few updates right responses are likelier and wrong ones less likely."""
    policy = tiny_policy("qwen3", seed=5)
    groups = sampled_groups(policy)
    rollouts = [rollout for group in groups for rollout in group]
    learner = Learner(policy, Optimizer(), SAMPLING)
    for _ in range(5):
        learner.update(reinforced(groups, OBJECTIVES["dapo"], 16), 1e-3, OBJECTIVES["dapo"])
    scored = policy.score([r.prompt_tokens for r in rollouts], [r.response_tokens for r in rollouts], SAMPLING)
    gains = {
        reward: np.mean(
            [s.sum() - r.logprobs.sum() for s, r in zip(scored, rollouts, strict=True) if r.reward == reward]
        )
        for reward in (0.0, 1.0)
    }
    assert gains[1.0] > 0 > gains[0.0]
