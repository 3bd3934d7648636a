"""Majority vote against enumeration of every order."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonloop.evaluation.evaluate import summary
from reasonloop.evaluation.majority import answers_of, classes, samples_in_budget, self_consistency, vote

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


def test_answers_of_one_value_are_one():
    """As text, as a number, as mathematics; what has none of these in common is another answer."""
    assert classes(["0.5", "1/2", None, "\\frac12", "50%", "half", " half ", "", "x + 1", "1 + x", "x+1"]) == [
        *(0, 0, None, 0, 4, 5, 5, 7, 8, 8, 8)
    ]


@given(st.lists(st.one_of(st.none(), st.sampled_from(["1", "1.0", "2", "x", "y", "x y"])), max_size=12))
def test_a_class_is_called_by_its_first_answer(own):
    found = classes(own)
    assert [name is None for name in found] == [answer is None for answer in own]
    for i, name in enumerate(found):
        assert name is None or (name <= i and found[name] == name)
    assert all((a == b) <= (x == y) for a, x in zip(own, found, strict=True) for b, y in zip(own, found, strict=True))


def test_a_majority_that_is_never_right_has_an_interval_as_the_average_has():
    row = {"n": 4, "correct": 0, "majority": False, "verdicts": {"wrong": 4}, "tokens": 4, "cut_off": 0}
    metrics = summary([{"id": str(i), **row} for i in range(30)], 4)["metrics"]
    assert metrics["maj@4"] == metrics["avg@4"]
    assert metrics["maj@4"]["ci95"][1] > 0.05


def test_a_task_says_what_its_responses_answer():
    class Silent:
        answer = "42"

    class Own:
        def answer(self, problem, response):
            return {"a": "1", "b": 7}[response]

    assert answers_of(Silent()) is None
    answer = answers_of(Own())
    assert [answer(None, text) for text in "abc"] == ["1", None, None]  # 7 is no text, and c raises
