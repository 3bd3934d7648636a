"""Behaviours: Countdown traces against what their making implies, natural language against its definitions."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import rollout, write_rollouts

from reasonloop.analysis.behaviours import (
    NGRAM,
    behaviours_over_steps,
    countdown_behaviours,
    countdown_problem,
    language_behaviours,
    per_1000_tokens,
)
from reasonloop.analysis.lexicon import BEHAVIOURS
from reasonloop.errors import InputError
from reasonloop.records import Problem, Verdict
from reasonloop.tasks.countdown.search import search, solution_counts
from reasonloop.tasks.countdown.task import Countdown

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
    assert not any(found.repeated.values())


@given(numbers_, st.integers(0, 10_000), st.integers(1, 4))
def test_a_search_that_is_repeated_counts_once(numbers: tuple[int, ...], seed: int, times: int) -> None:
    problem, trace = searched(numbers, 198, seed, 100_000)  # no solution: the search ends where it began
    once, again = countdown_behaviours(problem, " ".join(trace)), countdown_behaviours(problem, " ".join(trace * times))
    if 198 not in solution_counts(numbers):
        assert again.behaviours == once.behaviours
        assert again.nodes == once.nodes
        assert again.repeated["verification"] == (times - 1) * once.behaviours["verification"]


@given(
    st.lists(st.sampled_from(["3 + 7 = 10 ;", "7 + 3 = 10 ;", "25 + 9 = 34 ;", "back", "no", "yes", "25 - 10 = 15 ;"]))
)
def test_no_loop_counts_more_than_there_are_places(units: list[str]) -> None:
    found = countdown_behaviours(PROBLEM, " ".join(units))
    assert found.nodes <= 2
    assert found.behaviours["verification"] <= 1
    assert found.behaviours["alternative"] == 0
    assert found.behaviours["backtracking"] <= 3
    assert found.behaviours["self_correction"] <= 4


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
    assert again.repeated["self_correction"] == times - 1


def test_sentences_that_share_few_words_are_no_repetition() -> None:
    first, second = "Let me check that 3 * 7 is 21.", "Let me check that 25 + 21 is 46."
    assert len(re.findall(r"\w+", "Let me check that")) < NGRAM
    assert language_behaviours(f"{first} {second}").behaviours["verification"] == 2


def test_quotes_of_the_prompt_are_left_out() -> None:
    prompt = "Tom says: wait, that's wrong, we should go back to the start. Is he right?"
    found = language_behaviours(f"The text says: {prompt}\nHmm. Let me check his claim.", prompt)
    assert found.behaviours == {"verification": 1, "backtracking": 0, "self_correction": 0, "alternative": 0}
    assert found.quoted["self_correction"] == 1
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
    with pytest.raises(ValueError, match="-1"):
        per_1000_tokens({}, -1)


def test_a_problem_of_countdown_is_in_its_id() -> None:
    for problem in Countdown(train=20, probe=0, test=0).problems():
        made = countdown_problem(problem.id)
        assert {key: made.meta[key] for key in ("numbers", "target")} == {
            key: problem.meta[key] for key in ("numbers", "target")
        }
    for other in ("train-3f7525546ea0", "countdown-4-46-3.7.25", "countdown-1-3-3"):
        with pytest.raises(InputError, match="Countdown"):
            countdown_problem(other)


def test_behaviours_over_steps_sum_to_those_of_each_response(tmp_path: Path) -> None:
    right = "25 - 7 = 18 ; 18 + 3 = 21 ; no back back 7 * 3 = 21 ; 25 + 21 = 46 ; yes answer 25 + ( 7 * 3 )"
    wrong = "25 - 7 = 18 ; back 25 - 3 = 22 ; back"
    made = [
        rollout(PROBLEM.id, number, sample, [1] * 10, text=text, verdict=verdict, branch=branch)
        for branch, steps in (("main", range(5)), ("vanilla", range(2, 4)))
        for number in steps
        for sample, (text, verdict) in enumerate(
            [(right, Verdict.RIGHT), (wrong, Verdict.WRONG), ("", Verdict.TIMEOUT)]
        )
    ]
    write_rollouts(tmp_path, made)
    rows = behaviours_over_steps(tmp_path, "countdown", bins=2)
    assert [(r.branch, r.first_step, r.last_step, r.right) for r in rows] == [
        (branch, *span, right)
        for branch, spans in (("main", [(0, 1), (2, 4)]), ("vanilla", [(2, 2), (3, 3)]))
        for span in spans
        for right in (False, True)
    ]
    for row in rows:
        steps = row.last_step - row.first_step + 1
        assert row.rollouts == steps * (1 if row.right else 2)
        assert row.tokens == 10 * row.rollouts
        assert row.counts["backtracking"] == steps * (1 if row.right else 2)
        assert row.counts["verification"] == steps * (2 if row.right else 0)
        assert row.per_1000 == per_1000_tokens(row.counts, row.tokens)
        assert row.nodes == (4.0 if row.right else 1.0)
    (tmp_path / "config.toml").write_text('[task]\nname = "countdown"\nformat = "plain"\n')
    assert all(row.nodes is None for row in behaviours_over_steps(tmp_path, "countdown"))
