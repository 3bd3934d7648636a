"""Overfitting, over-specialisation, stability and scaling of made runs whose answers are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import evaluation, policy, step, write_evaluation, write_metrics

from reasonloop.analysis.arms import EvaluatedPolicy, by_arm, evaluated, largest_k
from reasonloop.analysis.overfitting import fall_from_peak
from reasonloop.analysis.scaling import gains
from reasonloop.analysis.specialisation import specialisation, training_accuracy
from reasonloop.analysis.stability import MEAN, WINDOW, collapses, spikes, stability
from reasonloop.report.run import RunData, read_run


@pytest.fixture
def run(tmp_path: Path) -> RunData:
    """RLoop of 2 iterations of 3 steps, and vanilla RL that goes on from the first iteration's 2nd step."""
    lines = [step(i, s, 100 * (3 * i + s + 1), right=0.1 * (3 * i + s + 1)) for i in range(2) for s in range(3)]
    for line in lines[:2]:
        line["shared_with"] = "vanilla"
    lines += [step(0, s, 100 * (s + 1), branch="vanilla", right=0.9) for s in range(2, 6)]
    write_metrics(tmp_path, lines)
    made = [
        evaluation("base", [16, 16, 16, 0], stage="base"),
        evaluation("iteration-0-rft", [32, 16, 16, 0], stage="rft", rollouts=300),
        evaluation("iteration-1-explored", [32, 0, 0, 0], stage="explore", iteration=1, rollouts=600),
        evaluation("iteration-1-rft", [32, 24, 16, 0], stage="rft", iteration=1, rollouts=600),
        evaluation("vanilla", [32, 0, 0, 0], arm="vanilla", rollouts=600),
    ]
    for order, e in enumerate(made):
        write_evaluation(tmp_path, e, order)
    return read_run(tmp_path)


def test_the_arms_of_a_run(run: RunData) -> None:
    arms = by_arm(evaluated(run.results))
    assert {arm: [e.name for e in own] for arm, own in arms.items()} == {
        "main": ["base", "iteration-0-rft", "iteration-1-rft"],
        "explored": ["base", "iteration-1-explored"],
        "vanilla": ["base", "vanilla"],
    }


def test_values_are_by_problem_in_the_order_of_ids() -> None:
    e = policy("e", [4, 0, 8], n=8)
    assert EvaluatedPolicy.of({**evaluation("e", [4, 0, 8], n=8), "problems": _reversed(e)}) == e
    assert e.values("avg").tolist() == [0.5, 0, 1]
    assert e.values("pass@8").tolist() == [1, 0, 1]
    with pytest.raises(ValueError, match="pass@64"):
        e.values("pass@64")


def _reversed(e: EvaluatedPolicy) -> list[dict[str, object]]:
    return [{"id": problem, "n": n, "correct": c} for problem, (c, n) in reversed(e.counts.items())]


def test_falls(run: RunData) -> None:
    arms = by_arm(evaluated(run.results))
    kept, lost = fall_from_peak(arms["main"], "avg"), fall_from_peak(arms["vanilla"], "pass@32")
    assert kept is not None
    assert lost is not None
    assert (kept.best.name, kept.fall) == ("iteration-1-rft", 0)
    assert (lost.best.name, lost.peak, lost.fall) == ("base", 0.75, 0.5)
    assert lost.ci95[0] >= 0
    assert fall_from_peak(arms["main"][:1], "avg") is None


@given(st.lists(st.lists(st.integers(0, 32), min_size=6, max_size=6), min_size=2, max_size=5))
def test_the_fall_is_from_the_best_to_the_last(correct: list[list[int]]) -> None:
    own = [policy(f"t{t}", row, rollouts=t) for t, row in enumerate(correct)]
    fall = fall_from_peak(own, "avg")
    assert fall is not None
    means = [float(np.mean(row)) / 32 for row in correct]
    assert fall.fall == pytest.approx(max(means) - means[-1])
    assert fall.best.mean("avg") == pytest.approx(max(means))
    assert fall.ci95[0] - 1e-9 <= fall.fall <= fall.ci95[1] + 1e-9 or fall.fall == 0


def test_where_nothing_fell_the_interval_of_the_best_is_too_high_and_the_cross_fitted_fall_is_not() -> None:
    # 12 checkpoints of one policy: every fall is luck
    rng = np.random.default_rng(0)
    falls = []
    for _ in range(40):
        accuracy = rng.beta(1, 1, 40)
        own = [policy(f"t{t}", rng.binomial(32, accuracy).tolist()) for t in range(12)]
        falls.append(fall_from_peak(own, "avg"))
    naive = np.mean([fall.fall for fall in falls if fall])
    fitted = [fall.cross_fitted for fall in falls if fall and fall.cross_fitted is not None]
    assert naive > 0.01
    assert abs(np.mean(fitted)) < 3 * np.std(fitted) / np.sqrt(len(fitted))


def test_specialisation(run: RunData) -> None:
    steps, arms = run.rl_steps(), by_arm(evaluated(run.results))
    first, second, last = arms["main"]
    assert training_accuracy(steps["main"], first) == pytest.approx(0.2)  # the first steps after it, of its iteration
    assert training_accuracy(steps["main"], second) == pytest.approx(0.5)
    assert training_accuracy(steps["main"], last) is None
    assert training_accuracy(steps["main"], arms["explored"][1]) == pytest.approx(0.5)  # the last steps before it
    assert training_accuracy([step(0, s, s + 1, right=0.1 * s) for s in range(9)], first) == pytest.approx(0.2)
    vanilla = specialisation(steps["vanilla"], arms["vanilla"], 32)[-1]
    assert vanilla.gap == pytest.approx((0.2 + 4 * 0.9) / 5 - 0.25)
    assert vanilla.gap_ci95 is not None
    assert vanilla.gap_ci95[0] <= vanilla.gap <= vanilla.gap_ci95[1]
    assert vanilla.spread == 0.0
    main = specialisation(steps["main"], arms["main"], 32)
    assert main[0].spread == 0.75 - 0.375
    assert main[-1].gap is None


def test_gains(run: RunData) -> None:
    found = gains(by_arm(evaluated(run.results))["main"], "avg")
    assert [(e.name, e.rollouts) for e, *_ in found] == [
        ("base", 0), ("iteration-0-rft", 300), ("iteration-1-rft", 600),
    ]  # fmt: skip
    assert [gain for _, gain, _ in found] == pytest.approx([0, 16 / 128, 24 / 128])
    assert all(low <= gain <= high for _, gain, (low, high) in found)
    assert gains([], "avg") == []


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=60))
def test_spikes_are_far_above_the_median_of_what_came_before(norms: list[float]) -> None:
    found = {line["step"] for line in spikes([step(0, s, s, grad_norm=norm) for s, norm in enumerate(norms)])}
    for s, norm in enumerate(norms):
        before = sorted(norms[max(0, s - WINDOW) : s])
        middle = (before[(len(before) - 1) // 2] + before[len(before) // 2]) / 2 if before else 0
        assert (s in found) == (s >= 5 and norm > 5 * middle)


def test_a_spike_at_the_start_of_an_iteration_is_measured_against_that_iteration() -> None:
    lines = [step(0, s, s, grad_norm=0.1) for s in range(30)] + [step(1, s, 30 + s, grad_norm=2.0) for s in range(30)]
    assert stability(lines).spikes == []
    lines[50]["grad_norm"] = 10.0  # five times 2.0
    assert stability(lines).spikes == []
    lines[50]["grad_norm"] = 11.0
    assert stability(lines).spikes == [lines[50]]


def test_a_collapse_is_half_of_the_best_mean_and_counts_once() -> None:
    rewards = [0.2] * 10 + [0.8] * 10 + [0.1] * 30 + [0.8] * 15 + [0.0] * 10
    found = collapses([step(0, s, s, right=right) for s, right in enumerate(rewards)])
    # k steps at 0.1 after ten at 0.8: the mean is 0.8 - 0.07 k, below 0.4 from k = 6 on; at 0.0: 0.8 - 0.08 k, k = 6
    assert [line["step"] for line in found] == [25, 70]
    assert collapses([step(0, s, s, right=0.8 - 0.7 * (s % 2)) for s in range(60)]) == []
    assert collapses([step(0, s, s, right=1.0 - s) for s in range(MEAN - 1)]) == []


def test_what_was_skipped_and_norms_that_were_not_measured() -> None:
    skipping = [step(i, s, s, skipped_updates=s // 2) for i in range(2) for s in range(5)]
    skipping[3] |= {"grad_norm": None}
    found = stability(skipping)
    assert (found.skipped_updates, found.grad_norm_median, found.grad_norm_p99) == (4, 1.0, 1.0)
    assert stability([]).grad_norm_median is None


def test_a_run_that_has_just_begun_has_nothing_yet() -> None:
    assert by_arm(evaluated([])) == {}
    assert largest_k([]) == 1
    assert [*by_arm(evaluated([evaluation("base", [1], stage="base")]))] == ["main"]
