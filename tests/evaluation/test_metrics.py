"""avg@k, pass@k and intervals against enumeration, simulation and known coverage."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reasonloop.evaluation import metrics
from reasonloop.evaluation.metrics import avg_at_k, bootstrap_ci, mean_interval, paired_bootstrap, pass_at_k, summarise


@pytest.mark.parametrize("n", range(1, 10))
def test_pass_at_k_is_the_share_of_all_subsets_with_a_right_sample(n: int) -> None:
    for k in range(1, n + 1):
        shares = [np.mean([min(chosen) < c for chosen in combinations(range(n), k)]) for c in range(n + 1)]
        np.testing.assert_allclose(pass_at_k(n, range(n + 1), k), shares, atol=1e-12)


def test_pass_at_k_is_unbiased_where_any_of_the_first_k_is_noisy() -> None:
    rng = np.random.default_rng(0)
    n, k, p = 12, 5, 0.2
    c = rng.binomial(n, p, size=40_000)
    estimates = pass_at_k(n, c, k)
    standard_error = estimates.std() / np.sqrt(len(c))
    assert abs(estimates.mean() - (1 - (1 - p) ** k)) < 4 * standard_error


def test_pass_at_k_is_stable_for_large_n_and_vectorised_over_mixed_n() -> None:
    values = pass_at_k([100_000, 100_000, 64], [1, 99_999, 64], 64)
    np.testing.assert_allclose(values, [64 / 100_000, 1.0, 1.0], rtol=1e-9)


@settings(deadline=None)  # a busy machine is no failure
@given(st.integers(1, 40), st.data())
def test_pass_at_1_is_avg_and_pass_at_k_never_falls_with_k(n: int, data: st.DataObject) -> None:
    c = np.array(data.draw(st.lists(st.integers(0, n), min_size=1, max_size=8)))
    np.testing.assert_allclose(pass_at_k(n, c, 1), avg_at_k(c, n), atol=1e-12)
    curve = np.array([pass_at_k(n, c, k) for k in range(1, n + 1)])
    assert (np.diff(curve, axis=0) >= -1e-12).all()
    np.testing.assert_array_equal(curve[-1], (c > 0).astype(float))


@pytest.mark.parametrize(("n", "c", "k"), [(4, 2, 5), (4, 2, 0), (4, 5, 1), (4, -1, 1), (0, 0, 1)])
def test_counts_that_make_no_sense_are_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match=r"pass@|counts"):
        pass_at_k([n], [c], k)


def test_bootstrap_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(400):
        difficulty = rng.beta(1.5, 2.5, size=120)
        values = rng.binomial(16, difficulty) / 16
        lo, hi = bootstrap_ci(values, draws=400, seed=trial)
        covered += lo <= 1.5 / 4.0 <= hi
    assert 0.91 <= covered / 400 <= 0.985


def test_intervals_are_reproducible_and_independent_of_the_memory_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).random(50)
    whole = bootstrap_ci(values, seed=5)
    monkeypatch.setattr(metrics, "_CELLS", 333)
    assert bootstrap_ci(values, seed=5) == whole
    assert bootstrap_ci(values, seed=6) != whole


def test_a_wider_level_gives_a_wider_interval_around_the_mean() -> None:
    values = np.random.default_rng(3).random(80)
    (lo50, hi50), (lo99, hi99) = bootstrap_ci(values, 0.5), bootstrap_ci(values, 0.99)
    assert lo99 < lo50 < values.mean() < hi50 < hi99


def test_pairing_takes_the_difficulty_of_problems_out() -> None:
    rng = np.random.default_rng(4)
    difficulty = rng.random(100)
    a, b = difficulty + 0.02 + 0.01 * rng.normal(size=100), difficulty
    diff, lo, hi, probability = paired_bootstrap(a, b)
    assert diff == pytest.approx((a - b).mean())
    assert lo > 0
    assert probability == 1.0
    unpaired = bootstrap_ci(a)
    assert hi - lo < (unpaired[1] - unpaired[0]) / 5


def test_paired_bootstrap_is_antisymmetric_and_undecided_between_equals() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.random(30), rng.random(30)
    diff, lo, hi, p = paired_bootstrap(a, b)
    back = paired_bootstrap(b, a)
    np.testing.assert_allclose(back, [-diff, -hi, -lo, 1 - p], atol=1e-12)
    assert paired_bootstrap(a, a) == (0.0, 0.0, 0.0, 0.5)
    with pytest.raises(ValueError, match="same problems"):
        paired_bootstrap(a, b[:-1])


def test_summary_has_the_file_format_and_leaves_out_k_above_n() -> None:
    problems = [{"id": "a", "n": 8, "correct": 8}, {"id": "b", "n": 8, "correct": 0}, {"id": "c", "n": 8, "correct": 4}]
    summary = summarise(problems)
    assert list(summary) == ["avg@8", "pass@1", "pass@2", "pass@4", "pass@8"]
    assert summary["avg@8"]["value"] == pytest.approx(0.5)
    assert summary["pass@8"]["value"] == pytest.approx(2 / 3)
    for metric in summary.values():
        lo, hi = metric["ci95"]
        assert lo <= metric["value"] <= hi
    assert tuple(summary["avg@8"]["ci95"]) == mean_interval([1.0, 0.0, 0.5])


def test_summary_refuses_mixed_sample_counts_by_name() -> None:
    with pytest.raises(ValueError, match="'odd' has 4 samples"):
        summarise([{"id": "x", "n": 8, "correct": 1}, {"id": "odd", "n": 4, "correct": 1}])
    with pytest.raises(ValueError, match="at least one"):
        summarise([])


@pytest.mark.parametrize("k", [1, 8])
@pytest.mark.parametrize("mean", [0.002, 0.01, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("unlike", [0.3, 3.0, 30.0])
@pytest.mark.parametrize("problems", [10, 40, 128])
def test_an_arm_s_own_interval_holds_the_truth_as_often_as_it_says(
    problems: int, unlike: float, mean: float, k: int
) -> None:
    """Problems whose shares of right samples are beta distributed; the smaller `unlike`, the more nearly 0 or 1 each."""
    rng, trials, n = np.random.default_rng(3), 400, 16
    shares = rng.beta(mean * unlike, (1 - mean) * unlike, size=(trials, problems))
    values = pass_at_k(n, np.arange(n + 1), k)[rng.binomial(n, shares)]
    truth = mean if k == 1 else 1 - np.mean((1 - rng.beta(mean * unlike, (1 - mean) * unlike, size=200_000)) ** k)
    hits = sum(lo <= truth <= hi for lo, hi in map(mean_interval, values))
    # 0.92 to 1.00 with more trials; the bootstrap over problems has 0.02 to 0.9 with few problems or near 0 and 1
    assert hits / trials >= 0.88


@pytest.mark.parametrize("problems", [1, 5, 80, 1000])
def test_at_the_ends_the_interval_has_the_problems_to_go_by_and_not_their_samples(problems: int) -> None:
    lo, hi = mean_interval(np.zeros(problems))
    assert lo == 0
    # so much of the probability that none of the problems was solved is left: exact
    assert (1 - hi) ** problems == pytest.approx(0.05)
    assert hi <= 3 / problems
    assert mean_interval(np.ones((3, problems))) == pytest.approx((1 - hi, 1))
    if problems > 1:  # hardly a step: one right sample of very many moves it by less than one problem more would
        assert mean_interval([1e-6, *np.zeros(problems - 1)])[1] == pytest.approx(hi, abs=1 / problems)


@given(st.lists(st.integers(0, 32), min_size=1, max_size=30))
def test_an_interval_lies_in_0_to_1_holds_the_mean_and_is_the_same_from_either_end(correct: list[int]) -> None:
    values = avg_at_k(correct, 32)
    lo, hi = mean_interval(values)
    assert 0 <= lo < hi <= 1
    assert lo - 1e-9 <= np.mean(values) <= hi + 1e-9
    back = mean_interval(1 - values)
    assert back == pytest.approx((1 - hi, 1 - lo), abs=1e-6)


def test_away_from_the_ends_it_is_the_bootstrap_s() -> None:
    rng = np.random.default_rng(6)
    for values in (rng.beta(1, 8, 128), rng.beta(2, 2, 128), rng.binomial(1, 0.5, 384)):
        assert mean_interval(values) == pytest.approx(bootstrap_ci(values), abs=0.006)


def test_seeds_share_their_problems_and_add_what_they_differ_by() -> None:
    one = np.random.default_rng(7).beta(1, 3, 100)
    same = np.repeat(one[None], 8, axis=0)
    assert mean_interval(same) == pytest.approx(mean_interval(one))
    apart = np.clip(same + np.linspace(-0.1, 0.1, 8)[:, None], 0, 1)
    assert np.ptp(mean_interval(apart)) > 1.1 * np.ptp(mean_interval(same))


@pytest.mark.parametrize("values", [[], [0.5, 1.5], [-0.1], [float("nan")]])
def test_values_that_are_no_shares_have_no_interval(values: list[float]) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        mean_interval(values)
