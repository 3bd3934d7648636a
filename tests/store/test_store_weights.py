from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonloop.store.weights import expert_weights

EXPERTS = st.lists(st.tuples(st.floats(-300, 0), st.floats(-300, 0), st.sampled_from("abc")), min_size=1, max_size=12)


@given(EXPERTS, st.floats(0.01, 100))
def test_weights_equal_the_printed_formula(experts: list[tuple[float, float, str]], clip: float) -> None:
    weights = expert_weights(*zip(*experts, strict=True), clip)
    # e^300 fits a float64, and exact fractions of such floats can't under- or overflow.
    raw = [min(Fraction(math.exp(a - b)), Fraction(clip)) for a, b, _ in experts]
    for i, (_, _, problem) in enumerate(experts):
        same = [w for w, (_, _, p) in zip(raw, experts, strict=True) if p == problem]
        assert weights[i] == pytest.approx(float(raw[i] * len(same) / sum(same)), rel=1e-9, abs=1e-300)


@given(EXPERTS, st.floats(0.01, 100), st.floats(-1e5, 0))
def test_every_problems_weights_have_mean_one_however_long_its_responses(
    experts: list[tuple[float, float, str]], clip: float, shift: float
) -> None:
    start, behaviour, problems = (np.array(column) for column in zip(*experts, strict=True))
    weights = expert_weights(start + shift, behaviour, problems, clip)
    assert weights.dtype == np.float64
    assert np.isfinite(weights).all()
    assert (weights >= 0).all()
    for problem in set(problems):
        assert weights[problems == problem].mean() == pytest.approx(1)


def test_far_below_float64_only_the_ratios_within_a_problem_count() -> None:
    weights = expert_weights([-5000 + math.log(3), -5000, -9000], [-1, -1, -1], ["a", "a", "b"], clip=2)
    np.testing.assert_allclose(weights, [1.5, 0.5, 1])


def test_far_above_clip_all_are_equal() -> None:
    np.testing.assert_allclose(expert_weights([-1, -1], [-4000, -9000], ["a", "a"], clip=5), [1, 1])


def test_a_problem_without_a_possible_response_gets_equal_weights() -> None:
    weights = expert_weights([-np.inf, -np.inf, -np.inf, -1], [-1, -2, -1, -1], ["a", "a", "b", "b"], clip=5)
    np.testing.assert_allclose(weights, [1, 1, 0, 2])


def test_no_experts_no_weights() -> None:
    assert expert_weights([], [], [], clip=1).shape == (0,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([-1.0], [-1.0, -2.0], ["a"], 1), "lengths"),
        (([-1.0], [-1.0], ["a", "b"], 1), "lengths"),
        (([-1.0], [-1.0], ["a"], 0), "clip is 0"),
        (([math.nan], [-1.0], ["a"], 1), "finite"),
        (([-1.0], [-math.inf], ["a"], 1), "finite"),
    ],
)
def test_input_without_meaning_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expert_weights(*arguments)
