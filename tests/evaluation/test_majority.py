"""Majority vote against enumeration of every order."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonloop.evaluation.majority import samples_in_budget, self_consistency, vote

answers = st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=6)


@given(answers)
def test_the_vote_is_for_the_first_of_the_most_frequent(own):
    counts = Counter(answer for answer in own if answer is not None)
    expected = next((a for a in own if a is not None and counts[a] == max(counts.values())), None)
    assert vote(own) == expected


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.floats(0, 60))
def test_samples_fit_into_the_budget_and_one_more_would_not(tokens, budget):
    taken = samples_in_budget(tokens, budget)
    assert 1 <= taken <= len(tokens)
    assert taken == 1 or sum(tokens[:taken]) <= budget
    assert taken == len(tokens) or sum(tokens[: taken + 1]) > budget


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.integers(1, 4)), min_size=1, max_size=5),
    st.integers(1, 12),
)
def test_accuracy_is_the_mean_over_orders(samples, budget):
    right = {"a": True, "b": False, None: False}
    outcomes = []
    for order in itertools.permutations(samples):
        taken = order[: samples_in_budget([length for _, length in order], budget)]
        outcomes.append(right[vote([answer for answer, _ in taken])])
    (found,) = self_consistency(
        [[answer for answer, _ in samples]],
        [[right[a] for a, _ in samples]],
        [[n for _, n in samples]],
        budget,
        draws=400,
    )
    assert found == pytest.approx(np.mean(outcomes), abs=0.13)  # 5 deviations of a mean over 400 draws


def test_many_votes_beat_one_where_the_right_answer_leads():
    own, right = ["a", "a", "a", "b", "c"], [True, True, True, False, False]
    one, many = (self_consistency([own], [right], [[10] * 5], budget)[0] for budget in (10, 50))
    assert one == pytest.approx(0.6, abs=0.12)
    assert many == 1.0
