from __future__ import annotations

import hashlib
import json
import math
import random
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rollout_factory import bits, rollout

from reasonloop.errors import InputError, RunError
from reasonloop.records import Place, Rollout, Verdict
from reasonloop.store.experts import experts_among, select_experts
from reasonloop.store.segments import TrajectoryStore, list_segments

ROOT = Path(__file__).parents[2]


@st.composite
def explorations(draw: st.DrawFn) -> list[Rollout]:
    """Few problems and tokens, so that duplicates, steps without success and short supplies are common. Of one exploration,
    or of three side by side."""
    rollouts = []
    branches = draw(st.sampled_from([["main"], ["main.1", "main.2", "main.10"]]))
    places = st.tuples(st.sampled_from(branches), st.integers(0, 30))
    for branch, step in draw(st.lists(places, min_size=1, max_size=9, unique=True)):
        for problem in draw(st.sets(st.sampled_from(["p", "q", "ä/1/2", ""]), min_size=1)):
            for sample in range(draw(st.integers(1, 5))):
                tokens = draw(st.lists(st.integers(0, 4), max_size=3))
                verdict = draw(st.sampled_from([Verdict.RIGHT, Verdict.RIGHT, Verdict.WRONG, Verdict.TIMEOUT]))
                reward = draw(st.sampled_from([0.0, 1.0, -0.5]))  # success is by verdict, so that this must not count
                fields = {"branch": branch, "verdict": verdict, "reward": reward}
                rollouts.append(rollout(problem, step, sample, tokens, **fields))
    return rollouts


def stored(folder: Path, rollouts: list[Rollout]) -> Path:
    by_step = defaultdict(list)
    for r in rollouts:
        by_step[r.place].append(r)
    for place, rows in by_step.items():
        TrajectoryStore(folder, "run").write(rows, place)
    return folder


def number(r: Rollout) -> int:
    """Of its step among those of all explorations side by side: those of the first come first."""
    return sum(r.place.twin) * 2**20 + r.step


def drawn(seed: int, r: Rollout) -> str:
    return hashlib.md5(f"{seed}/{number(r)}/{r.sample}/{r.problem_id}".encode()).hexdigest()


def reference(
    rollouts: list[Rollout], threshold: float, cap: int, seed: int, last_step: bool
) -> dict[str, list[Rollout]]:
    """Expert selection by the docstring of `select_experts`, problem by problem in plain Python."""
    selected = {}
    final = {branch: max(r.step for r in rollouts if r.branch == branch) for branch in {r.branch for r in rollouts}}
    for problem in sorted({r.problem_id for r in rollouts}):
        own = [r for r in rollouts if r.problem_id == problem]
        right = [r for r in own if r.verdict == Verdict.RIGHT]
        if not 0 < Fraction(len(right), len(own)) <= Fraction(threshold):
            continue
        unique: dict[bytes, Rollout] = {}
        for r in sorted(right, key=lambda r: (number(r), r.sample)):
            if r.step == final[r.branch] or not last_step:
                unique.setdefault(r.response_tokens.tobytes(), r)
        queues: dict[int, list[Rollout]] = defaultdict(list)
        for r in unique.values():
            queues[number(r)].append(r)
        for queue in queues.values():
            queue.sort(key=lambda r: drawn(seed, r))
        chosen: list[Rollout] = []
        while len(chosen) < cap and any(queues.values()):
            steps = sorted(step for step, queue in queues.items() if queue)
            free = cap - len(chosen)
            if free == 1 and len(steps) > 1:
                steps = [steps[(len(steps) - 1) // 2]]
            elif free < len(steps):
                places = [Fraction(i * (len(steps) - 1), free - 1) for i in range(free)]
                steps = [steps[math.floor(place + Fraction(1, 2))] for place in places]
            chosen += [queues[step].pop(0) for step in steps]
        selected[problem] = sorted(chosen, key=lambda r: (number(r), r.sample))
    return selected


@given(explorations(), st.sampled_from([0.25, 0.5, 0.9, 1.0]), st.integers(1, 9), st.integers(0, 2**40), st.booleans())
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_selection_equals_a_plain_reference_whatever_the_row_order(
    tmp_path_factory: pytest.TempPathFactory,
    rollouts: list[Rollout],
    threshold: float,
    cap: int,
    seed: int,
    last_step: bool,
) -> None:
    folder = stored(tmp_path_factory.mktemp("store"), random.Random(seed).sample(rollouts, len(rollouts)))
    experts = select_experts(
        folder,
        iteration=0,
        hard_threshold=threshold,
        cap=cap,
        seed=seed,
        full_step=0 if last_step else None,
    )
    expected = reference(rollouts, threshold, cap, seed, last_step)
    assert bits(experts.rollouts) == bits(r for chosen in expected.values() for r in chosen)

    seen = Counter(r.problem_id for r in rollouts)
    right = Counter(r.problem_id for r in rollouts if r.right)
    assert [tuple(rate) for rate in experts.rates] == [(p, seen[p], right[p]) for p in sorted(seen)]
    assert (experts.seen, experts.right, experts.problems) == (len(rollouts), right.total(), len(seen))
    assert experts.hard_problems == len(expected)
    assert experts.selected == len(experts.rollouts)
    assert all(rate.rate == rate.right / rate.seen for rate in experts.rates)

    if not last_step:
        shuffled = random.Random(seed).sample(rollouts, len(rollouts))
        in_memory = experts_among(shuffled, hard_threshold=threshold, cap=cap, seed=seed)
        assert bits(in_memory.rollouts) == bits(experts.rollouts)
        assert replace(in_memory, rollouts=[]) == replace(experts, rollouts=[])


def test_rollouts_in_memory_are_of_one_exploration_and_have_addresses() -> None:
    for rollouts, fault in (
        ([], "no rollouts"),
        ([rollout("p"), rollout("p", branch="vanilla")], "main 0, vanilla 0"),
        ([rollout("p"), rollout("p", iteration=1)], "main 0, main 1"),
        ([rollout("p"), rollout("p", tokens=(3,))], "2 rollouts of problem p are sample 0 of step 0"),
    ):
        with pytest.raises(InputError, match=fault):
            experts_among(rollouts)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=12), st.integers(1, 14), st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_the_cap_is_spread_evenly_over_the_steps(
    tmp_path_factory: pytest.TempPathFactory, supply: list[int], cap: int, seed: int
) -> None:
    rollouts = [rollout("p", 3 * step, i, [step, i]) for step, n in enumerate(supply) for i in range(n)]
    folder = stored(tmp_path_factory.mktemp("store"), rollouts)
    experts = select_experts(folder, iteration=0, cap=cap, seed=seed, hard_threshold=1.0)
    taken = [Counter(r.step for r in experts.rollouts)[3 * step] for step in range(len(supply))]
    assert sum(taken) == min(cap, sum(supply))
    for mine, available in zip(taken, supply, strict=True):
        if mine < available:  # it could give more: then no other step gives two more than it does
            assert max(taken) <= mine + 1
    if len(supply) >= cap >= 2:
        places = [step for step, n in enumerate(taken) if n]
        gaps = [b - a for a, b in pairwise(places)]
        assert (places[0], places[-1], len(places)) == (0, len(supply) - 1, cap)
        assert max(gaps) - min(gaps) <= 1


def test_of_equal_responses_the_earliest_step_and_lowest_sample_stays_and_other_problems_keep_theirs(
    tmp_path: Path,
) -> None:
    rollouts = [rollout(p, step, sample, [5]) for p in "pq" for step in (4, 2) for sample in (3, 1)]
    rollouts += [rollout("p", 2, 0, [5], verdict=Verdict.WRONG)]  # what isn't right can't stand in for what is
    experts = select_experts(stored(tmp_path, rollouts), iteration=0, hard_threshold=1.0)
    assert [(r.problem_id, r.step, r.sample) for r in experts.rollouts] == [("p", 2, 1), ("q", 2, 1)]
    assert experts.deduplicated == 2


def test_the_seed_draws_other_samples_of_the_same_steps(tmp_path: Path) -> None:
    rollouts = [rollout("p", step, i, [step, i]) for step in range(4) for i in range(8)]
    folder = stored(tmp_path, rollouts)
    drawn = [
        [(r.step, r.sample) for r in select_experts(folder, iteration=0, cap=4, seed=seed, hard_threshold=1.0).rollouts]
        for seed in range(24)
    ]
    assert all([step for step, _ in one] == [0, 1, 2, 3] for one in drawn)
    assert {sample for one in drawn for _, sample in one} == set(range(8))


def test_only_the_asked_branch_and_iteration_are_seen(tmp_path: Path) -> None:
    store = TrajectoryStore(tmp_path, "run")
    for branch in ("main", "vanilla"):
        for iteration in (0, 1):
            row = rollout(f"{branch}-{iteration}", branch=branch, iteration=iteration)
            store.write([row], Place(branch, iteration=iteration))
    experts = select_experts(tmp_path, iteration=1, branch="vanilla", hard_threshold=1.0)
    assert [r.problem_id for r in experts.rollouts] == ["vanilla-1"]
    assert experts.problems == 1


def test_an_iteration_without_success_has_no_experts_and_one_that_was_not_run_is_an_error(tmp_path: Path) -> None:
    folder = stored(tmp_path, [rollout("p", verdict=Verdict.WRONG)])
    experts = select_experts(folder, iteration=0)
    assert (experts.rollouts, experts.seen, experts.right, experts.hard_problems) == ([], 1, 0, 0)
    TrajectoryStore(folder, "run").write([], Place(iteration=3))
    assert select_experts(folder, iteration=3).seen == 0
    with pytest.raises(RunError, match="no rollouts of branch 'main', iteration 7"):
        select_experts(folder, iteration=7)


def test_a_cap_without_meaning_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected"):
        select_experts(tmp_path, iteration=0, cap=0)


def test_a_damaged_segment_is_named(tmp_path: Path) -> None:
    folder = stored(tmp_path, [rollout("p", step) for step in range(3)])
    path = folder / "main-i000-s00001.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RunError, match=r"main-i000-s00001\.parquet"):
        select_experts(folder, iteration=0)


def test_selected_rows_are_whole_when_they_lie_in_many_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reasonloop.store.segments._ROW_GROUP_TOKENS", 5)
    rollouts = [
        replace(rollout(f"p{i:02d}", step, sample, [i, step, sample]), text=f"{i} {step} {sample}")
        for step in range(2)
        for i in range(20)
        for sample in range(2)
    ]
    experts = select_experts(stored(tmp_path, rollouts), iteration=0, cap=3, hard_threshold=1.0)
    by_address = {(r.problem_id, r.step, r.sample): r for r in rollouts}
    assert len(experts.rollouts) == 60
    assert bits(experts.rollouts) == bits(by_address[r.problem_id, r.step, r.sample] for r in experts.rollouts)


def test_three_hundred_thousand_rollouts_take_little_memory(tmp_path: Path) -> None:
    """The target is 10 million in 2 GB (and 60 s: benchmarks/store.py measures that)."""
    out = tmp_path / "store.json"
    subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "store.py"), "--rollouts", "300000", "--out", str(out)],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
    )
    selection = json.loads(out.read_text())["selection"]
    assert selection["seen"] == 300_000
    assert 0 < selection["selected"] <= 8 * selection["hard_problems"]
    assert selection["peak_bytes"] < 600e6


def test_the_last_step_is_the_last_one_that_the_budget_left_whole(tmp_path: Path) -> None:
    rollouts = [rollout("p", step, i, [step, i]) for step, n in enumerate((4, 6, 4, 1)) for i in range(n)]
    folder = stored(tmp_path, rollouts)
    for full, step in ((0, 3), (1, 3), (4, 2), (5, 1), (9, 1)):
        experts = select_experts(folder, iteration=0, cap=9, hard_threshold=1.0, full_step=full)
        assert {r.step for r in experts.rollouts} == {step}


def test_steps_that_are_made_again_are_taken_back(tmp_path: Path) -> None:
    store = TrajectoryStore(tmp_path, "run")
    for branch, iteration, step in (("main", 0, 1), ("main", 0, 2), ("main", 0, 9), ("main", 1, 2), ("greedy", 0, 2)):
        store.write([], Place(branch, iteration=iteration, step=step))
    store.take_back(Place(step=2))
    left = [(place.branch, place.iteration, place.step) for place in list_segments(tmp_path)]
    assert left == [("greedy", 0, 2), ("main", 0, 1), ("main", 1, 2)]
