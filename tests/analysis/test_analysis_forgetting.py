"""Forgetting against Python's own sets."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import policy

from reasonloop.analysis.forgetting import forgetting
from reasonloop.errors import InputError

counts_TP = st.integers(1, 12).flatmap(
    lambda problems: st.lists(
        st.lists(st.integers(0, 32), min_size=problems, max_size=problems), min_size=1, max_size=5
    )
)


@given(counts_TP, st.booleans())
def test_the_matrix_is_that_of_the_sets(correct: list[list[int]], reachable: bool) -> None:
    checkpoints = [policy(f"t{t}", row, rollouts=t) for t, row in enumerate(correct)]
    found = forgetting(checkpoints, reachable=reachable)
    least = 1 if reachable else 16
    solved = [{p for p, c in enumerate(row) if c >= least} for row in correct]
    for s, first in enumerate(solved):
        for t, later in enumerate(solved):
            value = found.matrix[s][t]
            assert math.isnan(value) if not first else value == pytest.approx(len(first - later) / len(first))
    assert found.solved == [len(own) for own in solved]
    assert found.ever_solved == len(set().union(*solved))
    assert found.ever_solved_gap == len(set().union(*solved)) - len(solved[-1])


def test_only_problems_that_all_checkpoints_have_count() -> None:
    found = forgetting([policy("a", [32, 32, 32]), policy("b", [32, 0])])
    assert found.solved == [2, 1]
    assert found.matrix[0][1] == 0.5
    with pytest.raises(InputError, match="'a', 'b' have no problem in common"):
        forgetting([policy("a", [1]), policy("b", [])])


def test_few_samples_are_said_to_be_few() -> None:
    assert forgetting([policy("a", [4], n=8)]).few_samples
    assert not forgetting([policy("a", [16])]).few_samples
    assert forgetting([policy("a", [1, 0], n=8)], reachable=True).solved == [1]
