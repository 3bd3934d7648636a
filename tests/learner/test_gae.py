"""GAE, Pass@k and MaxRL advantages against their definitions, written out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonloop.learner.advantages import group_advantages
from reasonloop.learner.gae import gae, token_rewards, whiten

unit = st.floats(0, 1)
numbers = st.floats(-3, 3)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=12), unit)
def test_gae_is_the_weighted_sum_of_its_deltas(pairs, lam):
    rewards, values = (np.array(column) for column in zip(*pairs, strict=True))
    advantages, returns = gae(rewards, values, lam)
    following = np.append(values[1:], 0.0)
    for t in range(len(rewards)):
        expected = sum(lam ** (u - t) * (rewards[u] + following[u] - values[u]) for u in range(t, len(rewards)))
        assert advantages[t] == pytest.approx(expected, abs=1e-9)
        assert returns[t] == pytest.approx(expected + values[t], abs=1e-9)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=12))
def test_monte_carlo_and_one_step_are_its_ends(pairs):
    rewards, values = (np.array(column) for column in zip(*pairs, strict=True))
    _, returns = gae(rewards, values, 1.0)
    np.testing.assert_allclose(returns, np.cumsum(rewards[::-1])[::-1], atol=1e-9)
    _, returns = gae(rewards, values, 0.0)
    np.testing.assert_allclose(returns, rewards + np.append(values[1:], 0.0), atol=1e-9)


def test_the_penalty_is_paid_at_every_token_and_the_reward_at_the_last():
    behaviour, reference = np.array([-1.0, -2.0, -0.5]), np.array([-1.5, -1.0, -0.5])
    np.testing.assert_allclose(token_rewards(0.8, behaviour, reference, 0.1), [-0.05, 0.1, 0.8])
    np.testing.assert_allclose(token_rewards(0.8, behaviour), [0, 0, 0.8])


@given(st.lists(st.lists(numbers, min_size=1, max_size=5), min_size=1, max_size=5))
def test_whitened_advantages_have_mean_0_and_deviation_1(lists):
    flat = np.concatenate(whiten([np.array(one) for one in lists]))
    assert flat.mean() == pytest.approx(0, abs=1e-6)
    spread = np.concatenate([np.array(one) for one in lists]).std()
    assert flat.std() == pytest.approx(1, abs=1e-3) if spread > 1e-4 else np.isfinite(flat).all()


@given(st.lists(st.booleans(), min_size=2, max_size=9), st.integers(1, 9))
def test_pass_k_is_the_mean_over_all_subsets_that_a_response_is_in(right, k):
    k = min(k, len(right))
    subsets = list(itertools.combinations(range(len(right)), k))
    passed = np.array([float(any(right[i] for i in subset)) for subset in subsets])
    found = group_advantages(np.array(right, dtype=float), f"pass@{k}")
    if passed.std() == 0:
        assert not found.any()
        return
    normalised = (passed - passed.mean()) / passed.std()
    for i in range(len(right)):
        own = [value for value, subset in zip(normalised, subsets, strict=True) if i in subset]
        assert found[i] == pytest.approx(np.mean(own), abs=1e-9)


@given(st.lists(unit, min_size=2, max_size=9))
def test_maxrl_divides_by_the_mean(rewards):
    found = group_advantages(np.array(rewards), "maxrl")
    mean = np.mean(rewards)
    np.testing.assert_allclose(found * mean, np.array(rewards) - mean, atol=1e-12)


def test_rewards_that_an_advantage_is_not_for():
    with pytest.raises(ValueError, match="0 and 1"):
        group_advantages(np.array([0.5, 1.0]), "pass@2")
    with pytest.raises(ValueError, match="k <= 2"):
        group_advantages(np.array([0.0, 1.0]), "pass@3")
    with pytest.raises(ValueError, match="at least 0"):
        group_advantages(np.array([-0.5, 1.0]), "maxrl")
