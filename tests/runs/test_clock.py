"""The simulator of a run's loop: its parts against what was measured, and against plain simulations of what they are."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonloop.runs import clock
from reasonloop.runs.clock import Rates, Step

ROOT = Path(__file__).parents[2]
FACTOR, SHARED = 4 / 3, 3 / 2
"""How far a part may be from what was measured, either way; and where processes share the machine's memory"""
ANY = Rates(step=0.01, token=0.001, prompt=1e-4, learned=2e-4, tuned=3e-4)


def test_parts_take_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every result file that has such parts: rates from `reasonloop bench` with the model, work from the file."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    found = importlib.import_module("simulated").compared()
    assert {"sampling", "learning", "all of it"} <= {one.part for one in found}
    most = {one: SHARED if one.file == "scale" else FACTOR for one in found}
    assert [one for one in found if not 1 / most[one] < one.simulated / one.measured < most[one]] == []


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
