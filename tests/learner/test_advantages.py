"""Group advantages and the overlong penalty: their defining properties, and brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from padded_objectives import group_advantages as padded_group_advantages

from reasonloop.learner.advantages import group_advantages
from reasonloop.learner.batch import useful_groups
from reasonloop.records import Group, Problem, Rollout
from reasonloop.rewards.outcome import overlong_penalty

KINDS = {"grpo": "group", "centered": "none", "rloo": "leave_one_out"}
# thousandths, so that no spread is as small as the epsilon beneath the standard deviation
rewards = st.lists(st.integers(-5000, 5000), min_size=2, max_size=32).map(lambda values: np.array(values) / 1000)


@given(rewards=rewards, kind=st.sampled_from(sorted(KINDS)))
def test_advantages_are_the_definitions_and_sum_to_zero(rewards: np.ndarray, kind: str) -> None:
    got = group_advantages(rewards, kind)
    expected = padded_group_advantages(torch.from_numpy(rewards)[None], KINDS[kind])[0].numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)
    assert abs(got.sum()) < 1e-9 * len(rewards) * (1 + np.abs(got).max())


@given(rewards=rewards)
def test_rloo_is_the_reward_minus_the_mean_of_the_others(rewards: np.ndarray) -> None:
    expected = [rewards[i] - np.delete(rewards, i).mean() for i in range(len(rewards))]
    np.testing.assert_allclose(group_advantages(rewards, "rloo"), expected, rtol=1e-9, atol=1e-9)


@given(rewards=rewards, scale=st.floats(1, 1000), shift=st.floats(-10, 10))
def test_scale_and_shift(rewards: np.ndarray, scale: float, shift: float) -> None:
    for kind, factor in (("grpo", 1.0), ("centered", scale), ("rloo", scale)):
        moved = group_advantages(rewards * scale + shift, kind)
        # grpo up to its epsilon, which is largest beside the smallest spread of these rewards
        np.testing.assert_allclose(moved, factor * group_advantages(rewards, kind), rtol=6e-3, atol=1e-6 * scale)


@given(rewards=rewards, kind=st.sampled_from(sorted(KINDS)), data=st.randoms())
def test_order_does_not_matter_and_better_is_never_worse(rewards: np.ndarray, kind: str, data: object) -> None:
    order = np.random.default_rng(data.randrange(1 << 30)).permutation(len(rewards))  # type: ignore[attr-defined]
    advantages = group_advantages(rewards, kind)
    np.testing.assert_allclose(group_advantages(rewards[order], kind), advantages[order], rtol=1e-9, atol=1e-9)
    ranked = advantages[np.argsort(rewards, kind="stable")]
    assert (np.diff(ranked) >= -1e-9).all()


def test_grpo_has_unit_unbiased_deviation() -> None:
    advantages = group_advantages(np.array([1.0, 0, 0, 0, 1, 1, 0, 0]), "grpo")
    assert advantages.std(ddof=1) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_equal_rewards_have_no_gradient(kind: str) -> None:
    assert (np.abs(group_advantages(np.full(8, 0.3), kind)) < 1e-9).all()


def test_wrong_requests() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        group_advantages(np.array([1.0]), "grpo")
    with pytest.raises(ValueError, match="expected grpo, centered, rloo, maxrl or pass@K"):
        group_advantages(np.array([1.0, 0.0]), "gae")


def test_useful_groups_are_those_with_unequal_rewards() -> None:
    def group(*values: float) -> Group:
        ids = np.array([1], np.int32)
        rollouts = (Rollout("p", ids, ids, np.zeros(1, np.float32), reward=value) for value in values)
        return Group(Problem("p"), ids, tuple(rollouts))

    groups = [group(1, 1, 1), group(0, 1, 0), group(0, 0), group(0.5, 0.5, 0.4)]
    assert useful_groups(groups) == [groups[1], groups[3]]


@given(limit=st.integers(2, 4096), data=st.data())
def test_overlong_penalty(limit: int, data: st.DataObject) -> None:
    """DAPO equation 13: 0 up to Lmax - Lc, then linear, -1 at Lmax and beyond."""
    buffer = data.draw(st.integers(1, limit - 1))
    length = data.draw(st.integers(1, limit))
    start = limit - buffer
    expected = 0.0 if length <= start else (start - length) / buffer
    assert overlong_penalty(length, limit, buffer) == pytest.approx(expected)
    assert overlong_penalty(start, limit, buffer) == 0
    assert overlong_penalty(limit, limit, buffer) == -1
    assert overlong_penalty(limit + 7, limit, buffer) == -1
    assert overlong_penalty(length, limit, 0) == 0
