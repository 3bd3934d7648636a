"""Diversity against brute force over Python sets, and where the answer is known."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from time import process_time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import rollout, write_rollouts

from reasonloop.analysis.diversity import diversity, jaccard, response_diversity
from reasonloop.analysis.ngrams import ngram_hashes
from reasonloop.errors import InputError
from reasonloop.records import Verdict
from reasonloop.store.database import connect

Response = tuple[int, int, list[int]]
"""problem, step, tokens"""

responses = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 5), st.lists(st.integers(0, 2), min_size=0, max_size=9)), max_size=14
)


def gram_set(tokens: list[int], n: int) -> set[tuple[int, ...]]:
    return {tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)} or {(-1, *tokens)}


def brute_force(made: list[Response], steps: int, bins: int, n: int) -> list[list[float | None]]:
    bins = min(bins, steps)
    bin_of = {s: b for b in range(bins) for s in range(steps * b // bins, steps * (b + 1) // bins)}
    cells: dict[tuple[int, int], dict[int, list[float]]] = {}
    for (p, s, x), (q, t, y) in combinations(made, 2):
        if p != q or (bin_of[s] == bin_of[t] and s != t):
            continue
        a, b = gram_set(x, n), gram_set(y, n)
        for cell in {(bin_of[s], bin_of[t]), (bin_of[t], bin_of[s])}:
            cells.setdefault(cell, {}).setdefault(p, []).append(1 - len(a & b) / len(a | b))
    return [
        [
            float(np.mean([np.mean(pairs) for pairs in cells[a, b].values()])) if (a, b) in cells else None
            for b in range(bins)
        ]
        for a in range(bins)
    ]


@given(responses, st.integers(1, 7), st.integers(1, 4))
def test_it_is_what_brute_force_says(made: list[Response], bins: int, n: int) -> None:
    tokens = [np.array(t, dtype=np.int32) for *_, t in made]
    found = response_diversity([p for p, *_ in made], [s for _, s, _ in made], tokens, 6, bins=bins, n=n)
    expected = brute_force(made, 6, bins, n)
    assert len(found.matrix) == len(expected)
    for row, wanted in zip(found.matrix, expected, strict=True):
        assert row == [None if value is None else pytest.approx(value, abs=1e-12) for value in wanted]


@given(st.lists(st.lists(st.integers(0, 3), max_size=12), min_size=1, max_size=6), st.integers(1, 4))
def test_hashes_are_equal_where_runs_are(lists: list[list[int]], n: int) -> None:
    runs = [(tuple(ids[i : i + n]), h) for ids in lists for i, h in enumerate(ngram_hashes(ids, n).tolist())]
    for (a, hash_a), (b, hash_b) in combinations(runs, 2):
        assert (a == b) == (hash_a == hash_b)


def test_jaccard_of_sets_without_anything_in_common() -> None:
    sets = [np.array(own, dtype=np.uint64) for own in ([1, 2, 3], [4], [3, 4])]
    np.testing.assert_allclose(jaccard(sets), [[1, 0, 1 / 4], [0, 1, 1 / 2], [1 / 4, 1 / 2, 1]])


def test_known_answers() -> None:
    rng = np.random.default_rng(0)
    fixed = [rng.integers(0, 9999, 20).astype(np.int32) for _ in range(4)]  # one text a step
    steps = [s for s in range(4) for _ in range(3)]
    found = response_diversity([0] * 12, steps, [fixed[s] for s in steps], 4, bins=4)
    assert (found.within, found.between, found.excess) == (0.0, 1.0, 1.0)
    assert found.excess_ci95 == (1.0, 1.0)
    alone = response_diversity([0], [0], fixed[:1], 4)  # a response is never compared with itself
    assert (alone.within, alone.between, alone.excess) == (None, None, None)


def test_problems_weigh_equally_and_a_bound_changes_little() -> None:
    rng = np.random.default_rng(1)
    problems = [0] * 400 + [1] * 4
    steps = [i % 4 for i in range(404)]
    tokens = [rng.integers(0, 2, 30).astype(np.int32) if p == 0 else np.arange(9, dtype=np.int32) for p in problems]
    exact = response_diversity(problems, steps, tokens, 4, bins=4, most_per_bin=1000)
    bounded = response_diversity(problems, steps, tokens, 4, bins=4, most_per_bin=40)
    again = response_diversity(problems, steps, tokens, 4, bins=4, most_per_bin=40)
    assert bounded == again
    assert bounded.between == pytest.approx(exact.between, abs=0.02)
    assert exact.matrix[0][1] is not None
    alone = response_diversity(problems[:400], steps[:400], tokens[:400], 4, bins=4, most_per_bin=1000)
    assert alone.matrix[0][1] is not None
    assert exact.matrix[0][1] == pytest.approx(alone.matrix[0][1] / 2)  # the other problem's diversity is 0


def test_forty_thousand_rollouts_take_seconds() -> None:
    rng = np.random.default_rng(2)
    problems = np.repeat(np.arange(256), 157)[:40_000]
    steps = np.tile(np.arange(150), 267)[:40_000]
    tokens = np.split(rng.integers(0, 60, 40_000 * 60).astype(np.int32), 40_000)
    began = process_time()
    found = response_diversity(problems.tolist(), steps.tolist(), tokens, 150, bins=8)
    assert process_time() - began < 20
    assert found.between is not None


def test_of_a_run_only_right_responses_of_the_branch_and_its_shared_start_count(tmp_path: Path) -> None:
    same, other = [1, 2, 3, 4, 5], [5, 6, 7, 8, 9]
    write_rollouts(
        tmp_path,
        [
            *(rollout("p", number, sample, same) for number in range(2) for sample in range(2)),
            *(rollout("p", number, 2, other, verdict=Verdict.WRONG) for number in range(2)),
            *(rollout("p", number, 0, other, iteration=1) for number in range(2)),
            *(rollout("p", number, sample, other, branch="vanilla") for number in range(2, 4) for sample in range(2)),
        ],
    )
    with connect(tmp_path) as database:
        main, vanilla = diversity(database), diversity(database, "vanilla")
        with pytest.raises(InputError, match="nobody"):
            diversity(database, "nobody")
    assert main.bins == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert main.matrix == [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, None, 0], [1, 1, 0, None]]
    assert vanilla.matrix == [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]]
