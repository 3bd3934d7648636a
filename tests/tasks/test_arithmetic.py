"""Arithmetic problems: disjoint splits, and a verifier that guessing doesn't pay with."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonloop.errors import InputError
from reasonloop.records import Problem, Verdict
from reasonloop.tasks import gold_response
from reasonloop.tasks.arithmetic import Arithmetic

PROBLEM = Problem(id="p", prompt="", answer="162", meta={"numbers": [27, 6]})


@pytest.mark.parametrize(
    ("options", "operation"),
    [
        ({}, int.__mul__),
        ({"operation": "sums", "digits": [2, 2], "train": 900, "shots": 8}, int.__add__),
        ({"digits": [3, 3], "format": "chat"}, int.__mul__),
    ],
)
def test_problems_are_right_disjoint_and_apart_from_the_shots(options, operation):
    task = Arithmetic(**options)
    problems = task.problems()
    assert problems == Arithmetic(**options).problems()
    assert len({p.id for p in problems}) == len(problems)
    assert len({tuple(sorted(p.meta["numbers"])) for p in problems}) == len(problems)
    shown = problems[0].prompt or " ".join(m["content"] for m in problems[0].messages)
    *shots, own = re.findall(r"What is (\d+) \w+ (\d+)\?", shown)
    assert list(own) == [str(n) for n in problems[0].meta["numbers"]]
    assert len(shots) == task.options.shots
    shot_keys = {tuple(sorted(map(int, shot))) for shot in shots}
    for problem in problems:
        a, b = problem.meta["numbers"]
        assert problem.answer == str(operation(a, b))
        assert (len(str(a)), len(str(b))) == task.options.digits
        assert tuple(sorted((a, b))) not in shot_keys
        assert task.verify(problem, gold_response(task, problem)).verdict is Verdict.RIGHT


def test_more_training_problems_leave_the_held_out_ones():
    few, many = ([p for p in Arithmetic(train=n).problems() if p.split != "train"] for n in (50, 400))
    assert few == many


@pytest.mark.parametrize(("least", "train"), [(2, 456), (1, 546), (0, 636)])
def test_factors_below_the_least_are_left_out(least, train):
    problems = Arithmetic(least=least, train=train, probe=60, test=200).problems()  # all that there are
    assert {b for p in problems for b in p.meta["numbers"][1:]} == set(range(least, 10))
    with pytest.raises(InputError, match="there are only"):
        Arithmetic(least=least, train=train + 1, probe=60, test=200).problems()


def test_practice_is_for_training_and_holds_no_held_out_problem_turned_round():
    options = {"train": 400, "probe": 60, "test": 200}
    plain = Arithmetic(**options).problems()
    practice = [[1, 2, 400], [1, 1, 36], [3, 1, 50]]  # 4 shots and 260 held-out problems leave 456 of [1, 2]
    problems = Arithmetic(**options, practice=practice).problems()
    assert [p for p in problems if p.split != "train"] == [p for p in plain if p.split != "train"]
    assert [p for p in problems if p.split == "train"][:400] == [p for p in plain if p.split == "train"]
    assert len({p.id for p in problems}) == len(problems) == 660 + 486
    lengths = [tuple(len(str(n)) for n in p.meta["numbers"]) for p in problems if p.split == "train"][400:]
    assert lengths == [(1, 2)] * 400 + [(1, 1)] * 36 + [(3, 1)] * 50
    kept_back = {frozenset(p.meta["numbers"]) for p in plain if p.split != "train"}
    shots = re.findall(r"What is (\d+) times (\d+)\?", problems[0].prompt)[:-1]
    kept_back |= {frozenset(map(int, shot)) for shot in shots}
    assert not kept_back & {frozenset(p.meta["numbers"]) for p in problems if p.split == "train"}
    Arithmetic(**options, practice=[[1, 2, 456]]).problems()  # all that there are
    with pytest.raises(InputError, match=r"practice = 457, but there are only 456 products of digits = \[1, 2\]"):
        Arithmetic(**options, practice=[[1, 2, 457]]).problems()


def test_a_least_number_that_leaves_none():
    with pytest.raises(InputError, match="least = 10"):
        Arithmetic(least=10)


@pytest.mark.parametrize(
    ("response", "verdict"),
    [
        (" 162", Verdict.RIGHT),
        (" 162\n\nQuestion: What is 3 times 5?\nAnswer: 15", Verdict.RIGHT),
        ("\n 27 x 6 = 162.", Verdict.RIGHT),
        ("6 times 27 is 162", Verdict.RIGHT),
        ("$162.00", Verdict.RIGHT),
        ("-162", Verdict.WRONG),
        ("162.5", Verdict.WRONG),
        ("1,162", Verdict.WRONG),
        ("27 x 6 = 163", Verdict.WRONG),
        ("161 162", Verdict.UNPARSEABLE),
        ("161 or 162 or 163", Verdict.UNPARSEABLE),
        ("161,162", Verdict.WRONG),
        ("160,161,162", Verdict.WRONG),
        ("1,2,162", Verdict.UNPARSEABLE),
        ("I don't know\n162", Verdict.UNPARSEABLE),
        ("", Verdict.UNPARSEABLE),
        ("1" * 10_000_000, Verdict.UNPARSEABLE),
        ("\x00162", Verdict.RIGHT),
    ],
)
def test_verdicts(response, verdict):
    assert Arithmetic().quick(PROBLEM, response).verdict is verdict


@given(st.text(max_size=60))
def test_any_text_gets_a_verdict(text):
    Arithmetic().verify(PROBLEM, text)


@given(st.integers(-(10**12), 10**12), st.booleans())
def test_any_single_number_is_judged_by_its_value(number, grouped):
    text = f"{number:,}" if grouped else str(number)
    problem = Problem(id="p", prompt="", answer="162", meta={"numbers": [27, 6]})
    assert (Arithmetic().verify(problem, text).verdict is Verdict.RIGHT) == (number == 162)
    own = Problem(id="p", prompt="", answer=str(number), meta={"numbers": [27, 6]})
    assert Arithmetic().verify(own, text).verdict is Verdict.RIGHT


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": 700}, "only 720 products"),
        ({"digits": [2, 9]}, "between 1 and 4"),
        ({"operation": "product"}, "operation = 'product'"),
        ({"shot": 1}, "did you mean 'shots'"),
        ({"practice": [[2, 1, 5]]}, "expected other lengths than digits"),
        ({"practice": [[1, 1, 0]]}, "at least 1"),
        ({"practice": [[1, 5, 3]]}, "between 1 and 4"),
        ({"practice": [[1, 1, 3], [1, 1, 4]]}, "the same lengths twice"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        Arithmetic(**options).problems()
