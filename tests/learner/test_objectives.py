"""Objectives against the padded formulation of TRL and of the papers: values and gradients, with and without KL."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from float64_reference import Reference
from hypothesis import example, given, settings
from hypothesis import strategies as st
from padded_objectives import group_advantages, padded_loss
from tiny_models import tiny_policy, tokens

from reasonloop.config import Sampling
from reasonloop.learner.batch import Example, reinforced, supervised, token_targets, with_reference
from reasonloop.learner.losses import OBJECTIVES, Objective, k3, loss, value_loss
from reasonloop.policy.logprobs import target_logprobs
from reasonloop.policy.stream import pack
from reasonloop.records import Group, Problem, Rollout

MAX_TOKENS = 20

# objective -> what TRL would be told: advantage scale, loss_type, importance_sampling_level
TRL: dict[str, tuple[str, str, str]] = {
    "dapo": ("group", "dapo", "token"),
    "grpo": ("group", "grpo", "token"),
    "dr_grpo": ("none", "dr_grpo", "token"),
    "rloo": ("leave_one_out", "dapo", "token"),
    "gspo": ("group", "grpo", "sequence"),
    "cispo": ("group", "cispo", "token"),
}

PUBLISHED_CLIPS = {
    "dapo": (0.2, 0.28),
    "grpo": (0.2, 0.2),
    "dr_grpo": (0.2, 0.2),
    "rloo": (0.2, 0.2),
    "gspo": (3e-4, 4e-4),
    "cispo": (0.2, 0.28),
}


def make_groups(rng: np.random.Generator, problems: int, size: int) -> list[Group]:
    groups = []
    for problem in range(problems):
        prompt = tokens(rng, int(rng.integers(1, 8)))
        lengths = rng.integers(1, MAX_TOKENS + 1, size)
        rollouts = tuple(
            Rollout(
                f"p{problem}",
                prompt,
                tokens(rng, int(length)),
                logprobs=-rng.exponential(2.0, length).astype(np.float32),
                reward=float(rng.choice([0.0, 1.0, 0.25, -0.5])),
                sample=sample,
            )
            for sample, length in enumerate(lengths)
        )
        groups.append(Group(Problem(f"p{problem}"), prompt, rollouts))
    return groups


def masked(rollout: Rollout) -> np.ndarray:
    return np.ones(len(rollout.response_tokens)) if rollout.sampled is None else rollout.sampled.astype(np.float64)


def padded(rows: Sequence[np.ndarray]) -> torch.Tensor:
    """[B, T] float64, zeros behind each row's end."""
    out = torch.zeros(len(rows), max(len(row) for row in rows), dtype=torch.float64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = torch.from_numpy(np.asarray(row, dtype=np.float64))
    return out


def expected_loss(
    name: str,
    groups: list[Group],
    logprobs: torch.Tensor,
    reference: list[np.ndarray] | None,
    beta: float,
) -> torch.Tensor:
    """The padded formulation on current log-probs [B, T] float64."""
    scale, loss_type, level = TRL[name]
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    rewards = torch.tensor([[r.reward for r in group.rollouts] for group in groups], dtype=torch.float64)
    low, high = PUBLISHED_CLIPS[name]
    return padded_loss(
        logprobs,
        padded([r.logprobs for r in rollouts]),
        padded([masked(r) for r in rollouts]),
        group_advantages(rewards, scale).flatten(),
        loss_type,
        low,
        high,
        level,
        None if reference is None else padded(reference),
        beta,
        MAX_TOKENS,
    )


@settings(max_examples=25)
@given(
    name=st.sampled_from(sorted(TRL)),
    seed=st.integers(0, 2**31),
    problems=st.integers(1, 4),
    size=st.integers(2, 5),
    beta=st.sampled_from([0.0, 0.04]),
    drift=st.sampled_from([0.0, 3e-4, 0.2, 1.0]),
    tools=st.booleans(),
)
def test_values_and_gradients(
    name: str, seed: int, problems: int, size: int, beta: float, drift: float, tools: bool
) -> None:
    """As functions of the log-probs, with ratios at, near and far beyond the clip borders; with tokens in the responses that
    the policy didn't sample, and without."""
    rng = np.random.default_rng(seed)
    groups = make_groups(rng, problems, size)
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    for rollout in rollouts if tools else ():
        sampled = rng.random(len(rollout.response_tokens)) < 0.6
        sampled[rng.integers(len(sampled))] = True
        object.__setattr__(rollout, "sampled", sampled)
    current = [r.logprobs + drift * rng.normal(size=len(r.logprobs)) for r in rollouts]
    reference = [(r.logprobs + 0.5 * rng.normal(size=len(r.logprobs))).astype(np.float32) for r in rollouts]
    examples: Sequence[Example] = reinforced(groups, OBJECTIVES[name], MAX_TOKENS)
    if beta:
        examples = with_reference(examples, reference, beta)
    # float64 log-probs: no rounding hides a wrong formula, and ratios at the border fall on the same side
    flat = torch.from_numpy(np.concatenate(current)).double().requires_grad_()
    got = loss(flat, token_targets(examples, "cpu"), OBJECTIVES[name])
    rows = padded(current).requires_grad_()
    expected = expected_loss(name, groups, rows, reference, beta)
    assert float(got.total.detach()) == pytest.approx(float(expected.detach()), rel=1e-5, abs=1e-6)
    (gradient,) = torch.autograd.grad(got.total, flat)
    (padded_gradient,) = torch.autograd.grad(expected, rows)
    inside = padded([np.ones(len(row)) for row in current]).bool()
    torch.testing.assert_close(gradient, padded_gradient[inside], rtol=1e-4, atol=1e-7)
    if tools:
        assert (gradient[~torch.from_numpy(np.concatenate([r.sampled for r in rollouts]))] == 0).all()
    assert (padded_gradient[~inside] == 0).all()


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("name", sorted(TRL))
def test_parameter_gradients_of_whole_models(name: str, family: str) -> None:
    """From tokens to every weight's gradient: packed float32 against a float64 model and float64 autograd."""
    temperature, beta = 0.8, 0.05
    policy = tiny_policy(family, seed=6)
    reference_model = Reference(policy.model)
    rng = np.random.default_rng(3)
    groups = make_groups(rng, problems=2, size=3)
    for group in groups:
        for sample, rollout in enumerate(group.rollouts):
            object.__setattr__(rollout, "reward", float(sample == 1))
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    exact = [
        reference_model.logprobs(r.prompt_tokens.tolist(), r.response_tokens.tolist(), temperature) for r in rollouts
    ]
    spread = 1e-3 if name == "gspo" else 0.3
    for rollout, row in zip(rollouts, exact, strict=True):
        drifted = row.detach().numpy() + spread * rng.normal(size=len(row))
        object.__setattr__(rollout, "logprobs", drifted.astype(np.float32))
    reference = [(r.logprobs + 0.3 * rng.normal(size=len(r.logprobs))).astype(np.float32) for r in rollouts]
    rows = torch.nn.utils.rnn.pad_sequence(exact, batch_first=True)
    expected = expected_loss(name, groups, rows, reference, beta)
    names = list(reference_model.weights)
    gradients = torch.autograd.grad(expected, [reference_model.weights[n] for n in names])

    examples = with_reference(reinforced(groups, OBJECTIVES[name], MAX_TOKENS), reference, beta)
    stream = pack([e.prompt for e in examples], [e.response for e in examples])
    hidden = policy.hidden(stream.tokens, stream.positions, stream.plan)[stream.predict_from]
    logprobs, _ = target_logprobs(hidden, policy.head(), stream.targets, Sampling(temperature=temperature))
    got = loss(logprobs, token_targets(examples, "cpu"), OBJECTIVES[name]).total
    got.backward()
    assert float(got.detach()) == pytest.approx(float(expected.detach()), abs=1e-5)
    parameters = dict(policy.model.named_parameters())
    for n, gradient in zip(names, gradients, strict=True):
        torch.testing.assert_close(
            parameters[n].grad.double(), gradient, rtol=1e-3, atol=1e-5, msg=lambda text, n=n: f"{n}: {text}"
        )


def test_published_constants() -> None:
    assert set(OBJECTIVES) == {*TRL, "ppo"}  # PPO has a reference of its own: test_ppo.py
    for name, (low, high) in PUBLISHED_CLIPS.items():
        assert (OBJECTIVES[name].clip_low, OBJECTIVES[name].clip_high) == (low, high), name


def test_the_difference_to_trl_epsilon_is_below_four_parts_in_ten_thousand() -> None:
    for right in range(1, 8):
        rewards = torch.tensor([[1.0] * right + [0.0] * (8 - right)], dtype=torch.float64)
        ours, theirs = group_advantages(rewards, "group"), group_advantages(rewards, "group", epsilon=1e-4)
        assert ((ours - theirs) / ours).abs().max() < 4e-4


@pytest.mark.parametrize("name", sorted(TRL))
def test_on_policy_every_objective_is_the_plain_policy_gradient(name: str) -> None:
    """At ratio 1 nothing is clipped: the gradient is -A times the token's weight."""
    groups = make_groups(np.random.default_rng(0), 2, 3)
    examples = reinforced(groups, OBJECTIVES[name], MAX_TOKENS)
    targets = token_targets(examples, "cpu")
    logprobs = targets.behaviour.clone().requires_grad_()
    part = loss(logprobs, targets, OBJECTIVES[name])
    (gradient,) = torch.autograd.grad(part.total, logprobs)
    # a clip range of 3e-4 has its borders well away from 1; min's derivative at equal arguments is shared half and half
    torch.testing.assert_close(gradient, -targets.advantage * targets.policy_weight, rtol=1e-5, atol=1e-8)
    assert int(part.clipped) == 0
    assert float(part.k1) == 0


def one_token(ratio: float, advantage: float, objective: Objective) -> tuple[float, float, int]:
    """(loss, d loss / d logprob, clipped) of a single token with weight 1."""
    behaviour = np.array([-1.0], np.float32)
    example = Example(
        np.array([5], np.int32),
        np.array([6], np.int32),
        policy_weight=np.ones(1),
        advantage=np.array([advantage]),
        behaviour=behaviour,
    )
    logprob = torch.tensor([-1.0 + np.log(ratio)], dtype=torch.float64, requires_grad=True)
    part = loss(logprob, token_targets([example], "cpu"), objective)
    (gradient,) = torch.autograd.grad(part.total, logprob)
    return float(part.total.detach()), float(gradient), int(part.clipped)


@pytest.mark.parametrize(
    ("ratio", "advantage", "cut"),
    [(1.27, 1, False), (1.29, 1, True), (1.5, -1, False), (0.79, -1, True), (0.81, -1, False), (0.5, 1, False)],
)
def test_clipping_is_one_sided_and_asymmetric(ratio: float, advantage: float, cut: bool) -> None:
    value, gradient, clipped = one_token(ratio, advantage, OBJECTIVES["dapo"])
    bounded = min(max(ratio, 0.8), 1.28)
    assert clipped == cut
    assert gradient == pytest.approx(0.0 if cut else -ratio * advantage)
    assert value == pytest.approx(-min(ratio * advantage, bounded * advantage))


def test_cispo_never_silences_a_token() -> None:
    for ratio, weight in ((0.1, 0.8), (1.0, 1.0), (5.0, 1.28)):
        for advantage in (1.0, -2.0):
            assert one_token(ratio, advantage, OBJECTIVES["cispo"])[1] == pytest.approx(-weight * advantage)


@pytest.mark.parametrize("gap", [-500.0, 500.0])
def test_absurd_ratios_stay_finite(gap: float) -> None:
    for objective in OBJECTIVES.values():
        example = Example(
            np.array([5], np.int32),
            np.array([6, 7], np.int32),
            policy_weight=np.full(2, 0.5),
            kl_weight=np.full(2, 0.1),
            advantage=np.full(2, -1.0),
            behaviour=np.full(2, -1.0, np.float32),
            reference=np.full(2, -1.0, np.float32),
        )
        logprobs = torch.full((2,), -1.0 + gap, requires_grad=True)
        part = loss(logprobs, token_targets([example], "cpu"), objective)
        part.total.backward()
        assert torch.isfinite(part.total)
        assert torch.isfinite(logprobs.grad).all()


def test_supervised_loss_is_the_mean_over_all_response_tokens() -> None:
    rng = np.random.default_rng(0)
    pairs = [(tokens(rng, 3), tokens(rng, length)) for length in (1, 4, 7)]
    logprobs = torch.from_numpy(-rng.exponential(size=12)).requires_grad_()
    plain = loss(logprobs, token_targets(supervised(pairs), "cpu"), Objective())
    assert float(plain.total.detach()) == pytest.approx(-float(logprobs.detach().mean()), rel=1e-6)
    assert (float(plain.k1), float(plain.kl), int(plain.clipped)) == (0.0, 0.0, 0)
    weighted = loss(logprobs, token_targets(supervised(pairs, [0.5, 0.0, 2.0]), "cpu"), Objective())
    row = -logprobs.detach().numpy()
    assert float(weighted.total.detach()) == pytest.approx((0.5 * row[0] + 2.0 * row[5:].sum()) / 12, rel=1e-6)


@given(st.lists(st.floats(-8, 8), min_size=1, max_size=20))
@example(gaps=[6.628998750234356e-09])
def test_k3_is_never_negative_and_zero_at_equality(gaps: list[float]) -> None:
    gap = torch.tensor(gaps, dtype=torch.float64)
    estimate = k3(-gap, torch.zeros_like(gap))
    assert (estimate >= -1e-16).all()
    series = [sum(d**k / math.factorial(k) for k in range(2, 60)) for d in gaps]
    np.testing.assert_allclose(estimate.numpy(), series, rtol=1e-9, atol=1e-12)
    assert float(k3(torch.tensor([-3.0]), torch.tensor([-3.0]))) == 0.0


def test_k3_averages_to_the_kl_divergence() -> None:
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(6)), rng.dirichlet(np.ones(6))
    estimates = k3(torch.from_numpy(np.log(p)), torch.from_numpy(np.log(q))).numpy()
    assert float((p * estimates).sum()) == pytest.approx(float((p * np.log(p / q)).sum()), rel=1e-9)


@pytest.mark.parametrize(
    ("value", "old", "target", "expected"),
    [(1.0, 1.0, 0.0, 0.5), (1.5, 1.0, 0.0, 1.125), (1.5, 1.0, 2.0, 0.32), (0.5, 1.0, 0.0, 0.32), (0.0, 0.0, 0.0, 0.0)],
)
def test_value_loss_takes_the_worse_of_clipped_and_plain(
    value: float, old: float, target: float, expected: float
) -> None:
    tensors: list[Any] = [torch.tensor([x], dtype=torch.float64) for x in (value, old, target)]
    assert float(value_loss(*tensors, clip=0.2)) == pytest.approx(expected)


def test_a_groups_weight_in_dr_grpo_does_not_depend_on_the_groups_that_were_left_out() -> None:
    groups = make_groups(np.random.default_rng(3), 3, 4)
    alone = reinforced(groups[:1], OBJECTIVES["dr_grpo"], MAX_TOKENS, planned=16)
    beside = reinforced(groups, OBJECTIVES["dr_grpo"], MAX_TOKENS, planned=16)
    assert {weight for example in alone + beside for weight in example.policy_weight} == {1 / (16 * MAX_TOKENS)}
