"""The bootstrap: known answers, invariances, and whether its intervals hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reasonloop.evaluation.bootstrap import FEWEST, difference, over_seeds, resampled_means


def made(rng: np.random.Generator, seeds: int, problems: int, by_seed: float, by_problem: float) -> np.ndarray:
    """Differences with mean 0.05, [seeds, problems]: every seed and every problem has an effect of its own."""
    effects = by_seed * rng.normal(size=(seeds, 1)) + by_problem * rng.normal(size=(1, problems))
    return np.asarray(0.05 + effects + 0.1 * rng.normal(size=(seeds, problems)))


@pytest.mark.parametrize(
    ("seeds", "by_seed", "by_problem"), [(1, 0.0, 0.2), (3, 0.02, 0.2), (5, 0.02, 0.2), (5, 0.0, 0.1), (12, 0.05, 0.05)]
)
def test_95_percent_intervals_hold_the_truth_about_95_percent_of_the_time(
    seeds: int, by_seed: float, by_problem: float
) -> None:
    rng, trials = np.random.default_rng(0), 200
    hits = 0
    for trial in range(trials):
        b_SP = np.full((seeds, 60), 0.5)
        lo, hi = difference(b_SP + made(rng, seeds, 60, by_seed, by_problem), b_SP, 600, trial).ci95_absolute
        hits += lo <= 0.05 <= hi
    assert 0.89 <= hits / trials <= 0.995


def test_problems_that_all_seeds_share_do_not_average_out_over_seeds() -> None:
    rng = np.random.default_rng(1)
    one = made(rng, 1, 80, 0.0, 0.3)
    width = [np.ptp(difference(np.repeat(one, s, 0), np.zeros((s, 80)), 2000).ci95_absolute) for s in (1, 10)]
    assert width[1] == pytest.approx(width[0], rel=0.1)


def test_known_answers() -> None:
    a, b = np.full((3, 10), 0.6), np.full((3, 10), 0.5)
    d = difference(a, b, 500)
    assert d.absolute == pytest.approx(0.1)
    assert d.relative == pytest.approx(0.2)
    assert d.ci95_absolute == pytest.approx((0.1, 0.1))
    assert d.ci95 == pytest.approx((0.2, 0.2))
    assert d.probability == 1.0
    same = difference(a, a, 500)
    assert (same.absolute, same.probability) == (0.0, 0.5)


def test_against_an_arm_that_solves_nothing_there_is_no_relative_difference() -> None:
    a, none = np.full((2, FEWEST), 0.5), np.zeros((2, FEWEST))
    d = difference(a, none, 200)
    assert (d.relative, d.ci95, d.probability) == (None, (None, None), 1.0)
    almost = none.copy()
    almost[:, 0] = 0.5
    d = difference(a, almost, 2000)
    assert d.relative == pytest.approx(FEWEST - 1)
    lo, hi = d.ci95
    assert lo is not None
    assert hi is None  # a third of the draws leave the one solved problem out
    assert np.isfinite(lo)


@settings(max_examples=25)
@given(st.integers(1, 4), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_swapping_the_arms_turns_the_sign_and_nothing_else(seeds: int, problems: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.random((2, seeds, problems))
    forth, back = difference(a, b, 300), difference(b, a, 300)
    assert forth.absolute == pytest.approx(-back.absolute)
    assert forth.ci95_absolute == pytest.approx([-x for x in reversed(back.ci95_absolute)], abs=1e-9)
    assert forth.probability == pytest.approx(1 - back.probability)
    lo, hi = forth.ci95_absolute
    assert lo <= hi


def test_resampled_means_are_means_of_resamples() -> None:
    values_RP = np.random.default_rng(2).random((3, 40))
    means_RD = resampled_means(values_RP, 4000)
    assert means_RD.mean(axis=1) == pytest.approx(values_RP.mean(axis=1), abs=0.005)
    assert means_RD.std(axis=1) == pytest.approx(values_RP.std(axis=1) / np.sqrt(40), rel=0.06)
    # All rows see the same problems: equal rows stay equal in every draw.
    twice = resampled_means(np.repeat(values_RP[:1], 2, axis=0), 50)
    assert np.array_equal(twice[0], twice[1])


def test_the_spread_over_seeds_is_that_of_a_mean() -> None:
    means_S = np.array([0.1, 0.2, 0.4, 0.5])
    drawn_D = over_seeds(np.repeat(means_S[:, None], 20_000, axis=1))
    assert drawn_D.mean() == pytest.approx(means_S.mean(), abs=0.003)
    assert drawn_D.std() == pytest.approx(means_S.std(ddof=1) / 2, rel=0.03)


def test_unequal_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="same seeds and problems"):
        difference(np.ones((2, 3)), np.ones((3, 2)))


@pytest.mark.parametrize("problems", [1, 2, FEWEST - 1, FEWEST])
def test_a_handful_of_problems_shows_no_difference(problems: int) -> None:
    """Where all problems turn out the same way a bootstrap has no width; a sign test needs six of them."""
    found = difference(np.ones((1, problems)), np.zeros((1, problems)))
    assert found.ci95_absolute == ((1.0, 1.0) if problems == FEWEST else (-1.0, 1.0))
