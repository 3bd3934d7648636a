"""Overfitting, over-specialisation, stability and scaling of made runs whose answers are known."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import evaluation, rollout, step, write_evaluation, write_metrics, write_rollouts

from reasonloop.analysis.arms import by_arm, evaluations, rl_steps
from reasonloop.analysis.overfitting import fall_from_peak, overfitting
from reasonloop.analysis.scaling import rows as scaling_rows
from reasonloop.analysis.scaling import scaling
from reasonloop.analysis.specialisation import specialisation
from reasonloop.analysis.stability import MEAN, WINDOW, arm_stability, collapses, spikes, stability
from reasonloop.analysis.stability import rows as stability_rows
from reasonloop.errors import InputError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """RLoop of 2 iterations of 3 steps, and vanilla RL that goes on from the first iteration's 2nd step."""
    lines = [
        step(i, s, 100 * (3 * i + s + 1), right=0.1 * (3 * i + s + 1), entropy=1.0 - 0.1 * s)
        for i in range(2)
        for s in range(3)
    ]
    lines += [step(0, s, 100 * (s + 1), branch="vanilla", right=0.9, reward=0.8) for s in range(2, 6)]
    lines.append({"stage": "probe", "branch": "vanilla", "iteration": 0, "step": 3, "rollouts": 400, "avg@8": 0.25})
    write_metrics(tmp_path, lines)
    made = [
        evaluation("base", [16, 16, 16, 0], stage="base"),
        evaluation("iteration-0-rft", [32, 16, 16, 0], stage="rft", rollouts=300),
        evaluation("iteration-1-explored", [32, 0, 0, 0], stage="explore", iteration=1, rollouts=600),
        evaluation("iteration-1-rft", [32, 24, 16, 0], stage="rft", iteration=1, rollouts=600),
        evaluation("vanilla", [32, 0, 0, 0], branch="vanilla", rollouts=600),
    ]
    for order, e in enumerate(made):
        write_evaluation(tmp_path, e, order)
    write_rollouts(tmp_path, [rollout("p000", 0, 0, [1])])
    return tmp_path


def test_the_arms_of_a_run(run: Path) -> None:
    arms = by_arm(evaluations(run))
    assert {arm: [e.name for e in own] for arm, own in arms.items()} == {
        "main": ["base", "iteration-0-rft", "iteration-1-rft"],
        "main explored": ["base", "iteration-1-explored"],
        "vanilla": ["base", "vanilla"],
    }
    steps = rl_steps(run)
    assert [line["rollouts"] for line in steps["main"]] == [100, 200, 300, 400, 500, 600]
    assert [(line["branch"], line["step"]) for line in steps["vanilla"]] == [
        *(("main", s) for s in range(2)),
        *(("vanilla", s) for s in range(2, 6)),
    ]


def test_overfitting(run: Path) -> None:
    found = overfitting(run)
    assert {(p.arm, p.rollouts): p.reward for p in found.train}["vanilla", 600] == 0.8
    held_out = {(p.arm, p.split, p.rollouts, p.metric): p.value for p in found.held_out}
    assert held_out["main", "test", 600, "avg"] == 72 / 128
    assert held_out["vanilla", "test", 600, "pass@32"] == 0.25
    assert held_out["vanilla", "probe", 400, "avg"] == 0.25
    falls = {(fall.arm, fall.metric): fall for fall in found.falls}
    assert falls["main", "avg"].fall == 0
    lost = falls["vanilla", "pass@32"]
    assert (lost.peak_name, lost.peak, lost.last, lost.fall) == ("base", 0.75, 0.25, 0.5)
    assert lost.ci95[0] >= 0
    json.dumps([asdict(found), found.rows()], allow_nan=False)
    with pytest.raises(InputError, match="pass@64"):
        overfitting(run, ["pass@64"])


@given(st.lists(st.lists(st.integers(0, 32), min_size=6, max_size=6), min_size=2, max_size=5))
def test_the_fall_is_from_the_best_to_the_last(correct: list[list[int]]) -> None:
    own = [evaluation(f"t{t}", row, rollouts=t) for t, row in enumerate(correct)]
    fall = fall_from_peak("main", own, "avg")
    assert fall is not None
    means = [float(np.mean(row)) / 32 for row in correct]
    assert fall.fall == pytest.approx(max(means) - means[-1])
    assert own[fall.peak_rollouts].mean("avg") == pytest.approx(max(means))
    assert fall.ci95[0] - 1e-9 <= fall.fall <= fall.ci95[1] + 1e-9 or fall.fall == 0


def test_where_nothing_fell_the_interval_of_the_best_is_too_high_and_the_cross_fitted_fall_is_not() -> None:
    # 12 checkpoints of one policy: every fall is luck
    rng = np.random.default_rng(0)
    falls = []
    for _ in range(40):
        accuracy = rng.beta(1, 1, 40)
        own = [evaluation(f"t{t}", rng.binomial(32, accuracy).tolist()) for t in range(12)]
        falls.append(fall_from_peak("main", own, "avg"))
    naive = np.mean([fall.fall for fall in falls if fall])
    fitted = [fall.cross_fitted for fall in falls if fall and fall.cross_fitted is not None]
    assert naive > 0.01
    assert abs(np.mean(fitted)) < 3 * np.std(fitted) / np.sqrt(len(fitted))


def test_specialisation(run: Path) -> None:
    found = specialisation(run, window=2)
    points = {(p.arm, p.name): p for p in found.evaluations}
    assert points["main", "base"].train == pytest.approx(0.15)  # the first steps after it
    assert points["main", "iteration-0-rft"].train == pytest.approx(0.45)
    assert points["main", "iteration-1-rft"].train is None
    assert points["main explored", "iteration-1-explored"].train == pytest.approx(0.55)  # the last steps before it
    vanilla = points["vanilla", "vanilla"]
    assert vanilla.gap == pytest.approx(0.9 - 0.25)
    assert (vanilla.pass_1, vanilla.pass_k, vanilla.k, vanilla.spread) == (0.25, 0.25, 32, 0.0)
    assert points["main", "base"].spread == 0.75 - 0.375
    assert [p.entropy for p in found.entropy if p.arm == "main"] == pytest.approx([1.0, 0.9, 0.8] * 2)
    json.dumps(found.rows(), allow_nan=False)


def test_scaling(run: Path) -> None:
    points = scaling(run, ["avg"])
    main = [p for p in points if p.arm == "main"]
    assert [(p.place, p.rollouts) for p in main] == [(0, 0), (1, 300), (2, 600)]
    assert [p.gain for p in main] == pytest.approx([0, 16 / 128, 24 / 128])
    assert all(p.gain_ci95[0] <= p.gain <= p.gain_ci95[1] for p in points)
    assert {p.metric for p in scaling(run)} == {"avg", "pass@1", "pass@4", "pass@16", "pass@32"}
    json.dumps(scaling_rows(points), allow_nan=False)


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=60))
def test_spikes_are_far_above_the_median_of_what_came_before(norms: list[float]) -> None:
    found = {e.step for e in spikes([step(0, s, s, grad_norm=norm) for s, norm in enumerate(norms)])}
    for s, norm in enumerate(norms):
        before = sorted(norms[max(0, s - WINDOW) : s])
        middle = (before[(len(before) - 1) // 2] + before[len(before) // 2]) / 2 if before else 0
        assert (s in found) == (s >= 5 and norm > 5 * middle)


def test_a_spike_at_the_start_of_an_iteration_is_measured_against_that_iteration() -> None:
    lines = [step(0, s, s, grad_norm=0.1) for s in range(30)] + [step(1, s, 30 + s, grad_norm=2.0) for s in range(30)]
    assert arm_stability("main", lines).spikes == []
    lines[50]["grad_norm"] = 11.0
    (spike,) = arm_stability("main", lines).spikes
    assert (spike.iteration, spike.step, spike.value, spike.reference) == (1, 20, 11.0, 2.0)


def test_a_collapse_is_half_of_the_best_mean_and_counts_once() -> None:
    rewards = [0.2] * 10 + [0.8] * 10 + [0.1] * 30 + [0.8] * 15 + [0.0] * 10
    found = collapses([step(0, s, s, right=right) for s, right in enumerate(rewards)])
    # k steps at 0.1 after ten at 0.8: the mean is 0.8 - 0.07 k, below 0.4 from k = 6 on; at 0.0: 0.8 - 0.08 k, k = 6
    assert [e.step for e in found] == [25, 70]
    assert found[0].reference == pytest.approx(0.8)
    assert collapses([step(0, s, s, right=0.8 - 0.7 * (s % 2)) for s in range(60)]) == []
    assert collapses([step(0, s, s, right=1.0 - s) for s in range(MEAN - 1)]) == []


def test_stability_of_arms(run: Path) -> None:
    main, vanilla = stability(run)
    assert (main.arm, main.steps, vanilla.arm, vanilla.steps) == ("main", 6, "vanilla", 6)
    skipping = [step(i, s, s, skipped_updates=s // 2) for i in range(2) for s in range(5)]
    skipping[3] |= {"grad_norm": None}
    found = arm_stability("main", skipping)
    assert (found.skipped_updates, found.grad_norm_median, found.grad_norm_p99) == (4, 1.0, 1.0)
    assert stability_rows([found])[0]["spikes"] == 0
    json.dumps(stability_rows([main, vanilla]), allow_nan=False)


def test_a_run_that_has_just_begun_has_nothing_yet(tmp_path: Path) -> None:
    write_metrics(tmp_path, [])
    assert asdict(overfitting(tmp_path)) == {"train": [], "held_out": [], "falls": []}
    assert specialisation(tmp_path).rows() == scaling(tmp_path) == stability(tmp_path) == []
