"""The simulator of a run's loop: its parts against what was measured, and against plain simulations of what they are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonloop.planning.figures import rates_of_bench
from reasonloop.runs import clock
from reasonloop.runs.clock import Rates, Step

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
FACTOR = 1.25
"""How far a part may be from what was measured, either way"""
ANY = Rates(step=0.01, token=0.001, prompt=1e-4, learned=2e-4, tuned=3e-4)


def result(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def near(measured: float) -> Any:
    return pytest.approx(measured * (FACTOR + 1 / FACTOR) / 2, abs=measured * (FACTOR - 1 / FACTOR) / 2)


@pytest.mark.parametrize(
    ("name", "bench"), [("step", "countdown"), ("step-mixed", "countdown"), ("step-smollm2", "smollm2")]
)
def test_a_measured_step_is_what_the_bench_of_its_model_says(name: str, bench: str) -> None:
    """`benchmarks/step.py` from `reasonloop bench`: sampling, learning, and the whole step."""
    measured, rates = result(name), rates_of_bench(result(f"bench-{bench}"))
    work = measured["workload"]
    one = Step(
        responses=work["problems"] * work["group"],
        group=work["group"],
        prompt=work["prompt_tokens"],
        mean=work["response_tokens"],
        most=work["longest"],
        taught=work["mixed_groups"],
    )
    parts = clock.step(one, rates)
    sampled = median(measured["sampling_seconds"]["ours"])
    whole = median(pair["ours"] for pair in measured["pairs"])
    assert parts["sampling"] == near(sampled)
    assert parts["learning"] == near(whole - sampled)
    assert clock.total(parts) == near(whole)


@pytest.mark.parametrize("name", ["sample-smollm2-small", "sample-smollm2", "sample-smollm2-large"])
def test_measured_sampling_is_what_the_bench_says(name: str) -> None:
    """`benchmarks/sample.py`: 1 to 256 responses, equal and long-tailed, alone and behind shared prompts."""
    rates = rates_of_bench(result("bench-smollm2"))
    workloads = [one for one in result(name)["workloads"] if one["peer"] == "transformers generate"]
    assert len(workloads) >= 4
    for one in workloads:
        work, took = one["workload"], median(pair["ours"] for pair in one["pairs"])
        count, mean = work["batch"], took * one["tokens_per_second"]["ours"] / work["batch"]
        drawn = [mean] * count if work["lengths"] == "equal" else clock.lengths(count, mean, 4 * work["response"])
        assert clock.sampling(drawn, 8 if work["prompts"] == "shared" else 1, work["prompt"], rates) == near(took), work


@pytest.mark.parametrize("side", ["native", "vllm"])
def test_a_step_is_the_sum_of_the_parts_that_were_measured(side: str) -> None:
    """`benchmarks/engines.py` timed the parts of a step, and the whole of it."""
    measured = result("engines")
    parts = measured["parts"][side]
    tokens, work = measured["workload"]["tokens"], measured["workload"]
    rates = Rates(0.0, parts["sample"] / tokens, 0.0, parts["learn"] / tokens, 0.0, load=parts["load"], slots=10**9)
    count = work["problems"] * work["group"]
    one = Step(count, work["group"], 0.0, tokens / count, 4 * tokens)
    whole = median(pair["ours" if side == "native" else "peer"] for pair in measured["pairs"])
    assert clock.total(clock.step(one, rates)) == near(whole)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(1, 12))
def test_decoding_is_that_of_slots_which_take_the_next_response(lengths: list[int], slots: int) -> None:
    rates = Rates(0.25, 0.125, 0, 0, 0, slots=slots)
    waiting, flying, expected = list(lengths), list[int](), 0.0
    while waiting or flying:  # step by step
        while waiting and len(flying) < slots:
            flying.append(waiting.pop(0))
        expected += rates.step + rates.token * len(flying)
        flying = [left - 1 for left in flying if left > 1]
    assert clock.decoding(lengths, rates) == pytest.approx(expected)


@given(st.integers(1, 300), st.floats(1, 500), st.integers(500, 4000))
def test_lengths_have_the_mean_that_was_asked_for(count: int, mean: float, most: int) -> None:
    found = clock.lengths(count, mean, most)
    assert len(found) == count
    assert fmean(found) == pytest.approx(mean, rel=0.05, abs=0.5)
    assert 1 <= min(found) <= max(found) <= most


def test_more_ranks_take_less_time_and_never_less_than_their_share() -> None:
    work = Step(responses=512, group=8, prompt=100, mean=300, most=2000)
    whole = clock.step(work, ANY)
    for ranks in (2, 4, 8):
        shared = clock.step(work, ANY, ranks)
        for name in ("sampling", "learning"):
            assert whole[name] / ranks * 0.999 <= shared[name] < whole[name]
    assert clock.step(work, ANY, 8)["sampling"] > 1.3 * whole["sampling"] / 8  # all wait for the longest response


def test_verdicts_count_where_they_are_slower_than_sampling_alone() -> None:
    work = Step(responses=100_000, group=8, prompt=0, mean=1, most=2)
    assert clock.step(work, ANY)["verdicts, behind sampling"] == 0
    fast = replace(ANY, step=1e-8, token=1e-9)
    assert clock.step(work, fast)["verdicts, behind sampling"] == pytest.approx(100_000 * clock.VERDICT, rel=0.01)


def test_an_exploration_is_its_steps_and_its_checkpoints() -> None:
    work = Step(responses=64, group=8, prompt=10, mean=50, most=100, updates=2)
    one = clock.total(clock.step(work, ANY))
    parts = clock.exploration(work, 10, ANY, every=3 * one, save=5.0)
    assert parts["checkpoints"] == (3 + 1) * 5.0  # after 3, 6 and 9 steps, and at the end
    assert clock.total(parts) == pytest.approx(10 * one + 20)


@pytest.mark.parametrize(("hours", "rate"), [(1.0, 0.05), (5.0, 0.2), (10.0, 0.3)])
def test_work_that_begins_anew_takes_what_drawn_fates_say(hours: float, rate: float) -> None:
    draws, new, ends = np.random.default_rng(1), 0.1, []
    for _ in range(4000):
        spent = 0.0
        while (until := draws.exponential(1 / rate)) < hours:
            spent += until + new
        ends.append(spent + hours)
    assert clock.again(hours, rate, new) == pytest.approx(fmean(ends), rel=0.08)
    assert clock.last_of([hours], rate, new) == pytest.approx(fmean(ends), rel=0.08)
    four = np.array(ends).reshape(-1, 4).max(axis=1)
    assert clock.last_of([hours] * 4, rate, new) == pytest.approx(four.mean(), rel=0.08)


def test_checkpoints_save_what_machines_lose() -> None:
    assert clock.again(3.0, 0.0) == clock.last_of([1.0, 3.0], 0.0) == clock.since(3.0, 0.5, 0.0) == pytest.approx(3.0)
    assert 10 < clock.since(10, 0.5, 0.1) < clock.again(10, 0.1) < clock.last_of([10, 10], 0.1)
    assert clock.since(10, 100, 0.1) == clock.again(10, 0.1)
