"""Behaviours: Countdown traces against what their making implies, natural language against its definitions."""

from __future__ import annotations

import re
from random import Random
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonloop.analysis.behaviours import NGRAM, countdown_behaviours, language_behaviours, per_1000_tokens
from reasonloop.analysis.lexicon import BEHAVIOURS
from reasonloop.records import Problem
from reasonloop.tasks.countdown.search import search, solution_counts

PROBLEM = Problem("countdown-3-46-3.7.25", prompt="", meta={"numbers": [3, 7, 25], "target": 46})

numbers_ = st.lists(st.integers(1, 12), min_size=2, max_size=4).map(lambda numbers: tuple(sorted(numbers)))


def counts(text: str, problem: Problem = PROBLEM) -> dict[str, int]:
    return {name: count for name, count in countdown_behaviours(problem, text).behaviours.items() if count}


def searched(numbers: tuple[int, ...], target: int, seed: int, words: int) -> tuple[Problem, list[str]]:
    trace = search(numbers, target, Random(seed), skill=0.0, max_words=words, breadth=seed % 3)
    return Problem("p", prompt="", meta={"numbers": list(numbers), "target": target}), trace.words


@given(numbers_, st.integers(0, 10_000), st.integers(40, 400), st.data())
def test_a_search_is_counted_as_it_was_made(
    numbers: tuple[int, ...], seed: int, words: int, data: st.DataObject
) -> None:
    # depth-first search never tries a step twice at a node, so that plain counting of its words is an exact reference
    target = data.draw(st.sampled_from([*sorted(solution_counts(numbers)), 198]))
    problem, trace = searched(numbers, target, seed, words)
    text = " ".join(trace)
    found = countdown_behaviours(problem, text)
    assert found.behaviours == {
        "backtracking": len(re.findall(r"\bback(?: back)*", text)),
        "alternative": len(re.findall(r"\bback (?=\d)", text)),
        "verification": trace.count("no") + trace.count("yes"),
        "self_correction": 0,
    }
    assert found.nodes == trace.count(";")


@given(numbers_, st.integers(0, 10_000), st.integers(1, 4))
def test_a_search_that_is_repeated_counts_once(numbers: tuple[int, ...], seed: int, times: int) -> None:
    problem, trace = searched(numbers, 198, seed, 100_000)  # no solution: the search ends where it began
    once, again = countdown_behaviours(problem, " ".join(trace)), countdown_behaviours(problem, " ".join(trace * times))
    if 198 not in solution_counts(numbers):
        assert again.behaviours == once.behaviours
        assert again.nodes == once.nodes


@given(
    st.lists(st.sampled_from(["3 + 7 = 10 ;", "7 + 3 = 10 ;", "25 + 9 = 34 ;", "back", "no", "yes", "25 - 10 = 15 ;"]))
)
def test_no_loop_counts_more_than_there_are_places(units: list[str]) -> None:
    found = countdown_behaviours(PROBLEM, " ".join(units))
    assert found.nodes <= 2
    assert found.behaviours["verification"] <= 1
    assert found.behaviours["alternative"] == 0
    assert found.behaviours["backtracking"] <= 3
    # a step that isn't possible, once for each place and text (2 at the root, 3 and 4 below it), and the leaf's verdict
    assert found.behaviours["self_correction"] <= 2 + 3 + 4 + 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("25 - 7 = 18 ; 18 + 3 = 21 ; no back back 7 * 3 = 21 ; 25 + 21 = 46 ; yes answer 25 + ( 7 * 3 )", "b1 a1 v2"),
        ("25 - 7 = 17 ; back 25 - 7 = 18 ;", "b1 s1 a1"),  # wrong arithmetic, taken back before any verdict
        ("25 - 7 = 17 ; 17 * 3 = 51 ; no back back", "b1 v1"),  # never noticed
        ("25 - 9 = 16 ; back", "s1"),  # a number that isn't there leads nowhere: nothing to go back from
        ("25 - 7 = 18 ; 18 + 3 = 21 ; yes no back", "b1 s1"),  # a false verdict, replaced
        ("25 - 7 = 18 ; 18 + 3 = 21 ; no no no", "v1"),
        ("back back 25 - 7 = 18 ; back back", "b1"),
        ("3 + 7 = 10 ; back 7 + 3 = 10 ; back", "b1"),  # the same step again is no alternative
        ("no yes answer 46", ""),
        ("", ""),
    ],
)
def test_what_each_behaviour_of_a_trace_is(text: str, expected: str) -> None:
    assert counts(text) == {
        name: int(word[1:]) for word in expected.split() for name in BEHAVIOURS if name[0] == word[0]
    }


def test_a_behaviour_counts_once_a_sentence() -> None:
    found = language_behaviours("Let me double-check: to verify, let me check this again.\nLet's check.  LET’S CHECK!")
    assert found.behaviours == {"verification": 3, "backtracking": 0, "self_correction": 0, "alternative": 0}


@given(st.integers(2, 30))
def test_a_loop_of_natural_language_counts_as_often_as_its_sentences_differ(times: int) -> None:
    loop = "Wait, no, that sum is wrong, so I add 12 and 9 again. Let me check that the answer is 21. "
    once, again = language_behaviours(loop), language_behaviours(loop * times)
    assert once.behaviours["self_correction"] == once.behaviours["verification"] == 1
    assert again.behaviours == once.behaviours


def test_sentences_that_share_few_words_are_no_repetition() -> None:
    first, second = "Let me check that 3 * 7 is 21.", "Let me check that 25 + 21 is 46."
    assert len(re.findall(r"\w+", "Let me check that")) < NGRAM
    assert language_behaviours(f"{first} {second}").behaviours["verification"] == 2


def test_quotes_of_the_prompt_are_left_out() -> None:
    prompt = "Tom says: wait, that's wrong, we should go back to the start. Is he right?"
    found = language_behaviours(f"The text says: {prompt}\nHmm. Let me check his claim.", prompt)
    assert found.behaviours == {"verification": 1, "backtracking": 0, "self_correction": 0, "alternative": 0}
    assert language_behaviours(prompt).behaviours["self_correction"] == 1


@given(st.text(max_size=300))
def test_any_text_is_counted(text: str) -> None:
    for found in (language_behaviours(text, text), countdown_behaviours(PROBLEM, text)):
        assert set(found.behaviours) == set(BEHAVIOURS)
        assert min(found.behaviours.values()) >= 0


@pytest.mark.parametrize(
    "unit", ["12 plus 30 is 42, so he has 42 apples. ", "i said the answer should be a ", "so no wait, "]
)
def test_the_time_is_linear(unit: str) -> None:
    began = process_time()
    language_behaviours("let me check if this is wrong but instead go back another way? " + (unit * 250_000)[:250_000])
    assert process_time() - began < 2.0  # 0.2 s on an idle core


def test_per_1000_tokens() -> None:
    assert per_1000_tokens({"backtracking": 3, "verification": 0}, 2000) == {"backtracking": 1.5, "verification": 0.0}
    assert all(value != value for value in per_1000_tokens({"backtracking": 0}, 0).values())
