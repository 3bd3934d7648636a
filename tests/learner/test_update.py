"""One update: the same whatever way it is cut and ordered, with correct ratios over several updates of a step."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sampler import Sampler, at, prompt
from tiny_models import tiny_policy, tokens

from reasonloop.config import Optimizer, Sampling
from reasonloop.learner.batch import Example, effective_share, reinforced, supervised, with_proximal, with_reference
from reasonloop.learner.local import LocalLearner
from reasonloop.learner.losses import OBJECTIVES, Objective
from reasonloop.policy.policy import Policy
from reasonloop.policy.scorer import Scorer
from reasonloop.records import Group

SAMPLING = Sampling(max_tokens=16, stop=("answer", "back", "="))
UNCLIPPED = 1e9
GROUP_OBJECTIVES = sorted(OBJECTIVES.keys() - {"ppo"})  # PPO's updates: test_ppo.py


def sampled_groups(policy: Policy, problems: int = 3, size: int = 4, sampling: Sampling = SAMPLING) -> list[Group]:
    """Groups from the policy itself; every second response is rewarded."""
    rng = np.random.default_rng(1)
    prompts = [prompt(f"p{i}", tokens(rng, int(rng.integers(2, 9)))) for i in range(problems)]
    rollouts = Sampler(policy).sample(prompts, size, sampling, at(0, "explore"))
    for rollout in rollouts:
        object.__setattr__(rollout, "reward", float(rollout.sample % 2))
    return [replace(p, rollouts=tuple(rollouts[i * size : i * size + size])) for i, p in enumerate(prompts)]


def off_policy(groups: list[Group], drift: float) -> list[Group]:
    moved = copy.deepcopy(groups)
    rng = np.random.default_rng(2)
    for group in moved:
        for rollout in group.rollouts:
            rollout.logprobs[:] += drift * rng.normal(size=len(rollout.logprobs)).astype(np.float32)
    return moved


def gradients(
    policy: Policy, examples: list[Example], objective: Objective | None, microbatch_tokens: int, sampling: Sampling
) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Metrics and the gradient of one update; the weights stay (learning rate 0)."""
    options = Optimizer(microbatch_tokens=microbatch_tokens, grad_clip=UNCLIPPED)
    learner = LocalLearner(policy, options, sampling)
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
        return supervised([(r.prompt_tokens, r.response_tokens) for group in groups for r in group.rollouts])
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
    hidden = Scorer.hidden
    for limit in (1, 64, 1 << 20):
        calls = []
        monkeypatch.setattr(Scorer, "hidden", lambda self, *args, calls=calls: calls.append(1) or hidden(self, *args))
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
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    prompts, responses = [r.prompt_tokens for r in rollouts], [r.response_tokens for r in rollouts]
    before = policy.score(prompts, responses, sampling)
    for rollout, logprobs in zip(rollouts, before, strict=True):
        np.testing.assert_allclose(np.exp(logprobs - rollout.logprobs), 1.0, rtol=0, atol=1e-4)
    learner = LocalLearner(policy, Optimizer(), sampling)
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
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    metrics, _ = gradients(policy, reinforced(groups, OBJECTIVES["dapo"], 16), OBJECTIVES["dapo"], 50, SAMPLING)
    everything = np.concatenate([rollout.logprobs for rollout in rollouts])
    assert metrics["tokens"] == len(everything)
    assert metrics["logprob"] == pytest.approx(float(everything.mean()), abs=1e-5)
    assert 0 < metrics["entropy"] < np.log(97)
    assert metrics["loss"] == pytest.approx(
        -sum(e.advantage.sum() for e in reinforced(groups, OBJECTIVES["dapo"], 16)) / len(everything),
        abs=1e-4,
    )


def test_an_update_raises_the_reward_that_it_is_given() -> None:
    """After a few updates right responses are likelier and wrong ones less likely."""
    policy = tiny_policy("qwen3", seed=5)
    groups = sampled_groups(policy)
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    learner = LocalLearner(policy, Optimizer(), SAMPLING)
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


def with_tools(groups: list[Group], share: float, seed: int = 3) -> list[Group]:
    """Every response with some tokens that the policy didn't sample, but for its first: a tool's answers."""
    rng = np.random.default_rng(seed)
    changed = []
    for group in groups:
        rollouts = []
        for rollout in group.rollouts:
            sampled = rng.random(len(rollout.response_tokens)) >= share
            sampled[0] = True
            logprobs = np.where(sampled, rollout.logprobs, 0).astype(np.float32)
            rollouts.append(replace(rollout, sampled=sampled, logprobs=logprobs))
        changed.append(replace(group, rollouts=tuple(rollouts)))
    return changed


@pytest.mark.parametrize("name", ["sft", *GROUP_OBJECTIVES])
def test_tokens_that_the_policy_did_not_sample_are_context_and_nothing_else(policy: Policy, name: str) -> None:
    """Loss, entropy, log-prob, ratios and their gradients are those of the sampled tokens alone, counted by hand."""
    groups = with_tools(off_policy(sampled_groups(policy), 1e-3 if name == "gspo" else 0.2), 0.4)
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    if name == "sft":
        pairs = [(r.prompt_tokens, r.response_tokens) for r in rollouts]
        examples = supervised(pairs, sampled=[r.sampled for r in rollouts])
    else:
        examples = reinforced(groups, OBJECTIVES[name], SAMPLING.max_tokens)
        reference = [np.where(r.sampled, r.logprobs + 0.3, 99.0).astype(np.float32) for r in rollouts]
        examples = with_reference(examples, reference, 0.05)
    metrics, gradient = gradients(policy, examples, OBJECTIVES.get(name), 40, SAMPLING)
    scored = policy.score([r.prompt_tokens for r in rollouts], [r.response_tokens for r in rollouts], SAMPLING)
    own = np.concatenate([s[r.sampled] for s, r in zip(scored, rollouts, strict=True)])
    assert metrics["tokens"] == len(own) == sum(rollout.length for rollout in rollouts)
    assert metrics["logprob"] == pytest.approx(float(own.mean()), abs=1e-5)
    if name != "sft":
        behaviour = np.concatenate([r.logprobs[r.sampled] for r in rollouts])
        assert metrics["k1"] == pytest.approx(float((behaviour - own).mean()), abs=1e-5)
    assert 0 < metrics["entropy"] < np.log(97)
    # what stands in the columns of the other tokens changes nothing
    rubbish = []
    for e in examples:
        columns = {n: getattr(e, n) for n in ("behaviour", "reference", "advantage") if getattr(e, n) is not None}
        rubbish.append(replace(e, **{n: np.where(e.sampled, column, 7.0) for n, column in columns.items()}))
    again, same = gradients(policy, rubbish, OBJECTIVES.get(name), 1 << 20, SAMPLING)
    assert again == pytest.approx(metrics, rel=1e-4, abs=1e-6)
    for parameter, value in gradient.items():
        torch.testing.assert_close(same[parameter], value, rtol=0, atol=1e-5)


def test_an_engine_with_other_numbers_is_corrected_for(policy: Policy) -> None:
    """Ratios are to the learner's own log-probs; what lies between those and the engine's is a truncated factor."""
    groups = off_policy(sampled_groups(policy), 0.5)
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    proximal = policy.score([r.prompt_tokens for r in rollouts], [r.response_tokens for r in rollouts], SAMPLING)
    objective = replace(OBJECTIVES["dapo"], importance_clip=1.3)
    plain = reinforced(groups, objective, SAMPLING.max_tokens)
    metrics, got = gradients(policy, with_proximal(plain, proximal), objective, 40, SAMPLING)
    assert metrics["clip_fraction"] == 0  # on policy, whatever the engine said
    assert abs(metrics["k1"]) > 1e-3  # and the difference is reported
    weights = [
        np.minimum(np.exp(p.astype(np.float64) - r.logprobs), 1.3) for p, r in zip(proximal, rollouts, strict=True)
    ]
    by_hand = [
        replace(e, behaviour=p, policy_weight=e.policy_weight * w)
        for e, p, w in zip(plain, proximal, weights, strict=True)
    ]
    _, expected = gradients(policy, by_hand, objective, 1 << 20, SAMPLING)
    for parameter in expected:
        torch.testing.assert_close(got[parameter], expected[parameter], rtol=0, atol=1e-5)
    assert 0 < min(map(effective_share, weights)) < 1
    assert effective_share(np.full(5, 0.7)) == pytest.approx(1.0)


def test_an_exact_engine_needs_no_correction(policy: Policy) -> None:
    """Proximal log-probs that are the behaviour's own leave every bit of the loss as it was."""
    plain = reinforced(off_policy(sampled_groups(policy), 0.2), OBJECTIVES["dapo"], SAMPLING.max_tokens)
    same = with_proximal(plain, [e.behaviour for e in plain if e.behaviour is not None])
    assert gradients(policy, plain, None, 40, SAMPLING)[0] == gradients(policy, same, None, 40, SAMPLING)[0]
