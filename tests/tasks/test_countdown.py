"""The Countdown task: its splits, its verifier and its demonstrations."""

import re
from fractions import Fraction

import pytest
from expression_oracle import expressions, oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from reasonloop.errors import InputError
from reasonloop.records import Problem, Verdict
from reasonloop.tasks.countdown.task import Countdown, split_of

PROBLEM = Problem(id="p", prompt="46 from 3 7 25 :", meta={"numbers": [3, 7, 25], "target": 46})


@settings(max_examples=300)
@given(expressions, st.integers(0, 3))
def test_verdict_follows_from_the_oracle(text, off):
    numbers = [int(word) for word in re.findall("[0-9]+", text)]
    try:
        value = oracle(text)
    except ZeroDivisionError:
        value = Fraction(1, 3)
    target = int(value) + off
    problem = Problem(id="p", prompt="", meta={"numbers": numbers, "target": target})
    judgement = Countdown().verify(problem, f"3 + 4 = 7 ; yes answer {text}")
    assert judgement.verdict is (Verdict.RIGHT if value == target else Verdict.WRONG)
    fewer = Problem(id="p", prompt="", meta={"numbers": [*numbers, 5], "target": target})
    assert Countdown().verify(fewer, f"answer {text}").verdict is Verdict.WRONG


@pytest.mark.parametrize(
    ("response", "verdict"),
    [
        ("yes answer 25 + ( 7 * 3 )", Verdict.RIGHT),
        ("The Answer: $3 × 7 + 25$", Verdict.RIGHT),
        ("the answer is 7*3+25\n", Verdict.RIGHT),
        ("yes answer 25 + 7 * 3 no", Verdict.UNPARSEABLE),
        ("answer 25 + 7 + 3 answer 25 + 7 * 3", Verdict.UNPARSEABLE),
        ("25 + 7 * 3", Verdict.UNPARSEABLE),
        ("answer", Verdict.UNPARSEABLE),
        ("", Verdict.UNPARSEABLE),
        ("answer 46", Verdict.WRONG),
        ("answer 25 + 7 * 3 * 3 / 3", Verdict.WRONG),
        ("answer 25 + 7 / ( 3 - 3 )", Verdict.WRONG),
        ("answer 25 + 7 - 3", Verdict.WRONG),
        ("answer " + "(" * 3000 + "1" + ")" * 3000, Verdict.UNPARSEABLE),
        ("answer 9 * 9\x00", Verdict.UNPARSEABLE),
        ("no back " * 300_000 + "answer 25 + 7 * 3", Verdict.RIGHT),
    ],
)
def test_verdicts(response, verdict):
    task = Countdown()
    assert task.verify(PROBLEM, response).verdict is verdict
    assert task.quick(PROBLEM, response).verdict is verdict


def test_boxed_answers():
    task = Countdown(extract="boxed", format="chat")
    assert task.verify(PROBLEM, r"So it is \boxed{(7 \times 3) + 25}.").verdict is Verdict.RIGHT
    assert task.verify(PROBLEM, r"\boxed{25+21} or \boxed{7*3+25}").verdict is Verdict.UNPARSEABLE
    assert task.verify(PROBLEM, r"\boxed{7*3+25").verdict is Verdict.UNPARSEABLE


@pytest.mark.parametrize(
    "options", [{}, {"numbers": [3, 4], "max_solutions": 2}, {"numbers": 4}, {"format": "plain", "extract": "boxed"}]
)
def test_problems_are_solvable_and_as_asked(options):
    task = Countdown(train=60, probe=11, test=20, **options)
    problems = task.problems()
    assert [sum(p.split == split for p in problems) for split in ("train", "probe", "test")] == [60, 11, 20]
    assert len({p.id for p in problems}) == len(problems)
    for problem in problems:
        assert task.verify(problem, task.gold_response(problem)).verdict is Verdict.RIGHT
        assert (
            task.verify(problem, f"answer {problem.answer}").verdict is Verdict.RIGHT or task.options.extract == "boxed"
        )
        assert 10 <= problem.meta["target"] <= 100
        assert not task.options.max_solutions or problem.meta["solutions"] <= task.options.max_solutions
        assert problem.split == split_of(tuple(problem.meta["numbers"]), problem.meta["target"])
    lengths = [len(p.meta["numbers"]) for p in problems if p.split == "train"]
    assert all(lengths.count(n) == 60 // len(task.options.numbers) for n in task.options.numbers)


def test_same_options_same_problems_and_sizes_are_independent():
    first = Countdown(train=50, probe=5, test=10).problems()
    assert first == Countdown(train=50, probe=5, test=10).problems()
    held_out = [p for p in Countdown(train=7, probe=5, test=10).problems() if p.split != "train"]
    assert held_out == [p for p in first if p.split != "train"]
    assert first != Countdown(train=50, probe=5, test=10, seed=1).problems()


def test_held_out_problems_never_meet_training_ones_of_any_seed():
    tasks = [Countdown(numbers=(2, 3), max_number=25, train=300, probe=20, test=60, seed=seed) for seed in range(3)]
    trained = {p.id for task in tasks for p in task.problems() if p.split == "train"}
    trained |= {p.id for seed in range(3) for p, _ in tasks[0].demonstrations(300, seed)}
    held_out = {p.id for task in tasks for p in task.problems() if p.split != "train"}
    assert not trained & held_out


def test_split_shares():
    splits = [
        split_of((a, b, c), t) for a in range(1, 9) for b in range(9, 17) for c in (20, 25) for t in range(10, 30)
    ]
    assert splits.count("train") / len(splits) == pytest.approx(0.80, abs=0.03)
    assert splits.count("probe") / len(splits) == pytest.approx(0.05, abs=0.02)


def test_skill_decides_how_often_search_goes_wrong():
    task = Countdown()
    words = [
        sum(len(text.split()) for _, text in task.demonstrations(200, 0, skill=skill)) for skill in (0.0, 0.5, 1.0)
    ]
    assert words[0] > words[1] > words[2]
    assert list(task.demonstrations(5, 3)) == list(task.demonstrations(5, 3))


def test_unsuccessful_demonstrations_have_no_answer():
    task = Countdown(numbers=(4,))
    options = {"skill": 0.0, "max_words": 60}
    found = list(task.demonstrations(100, 0, success_only=False, **options))
    verdicts = [task.verify(p, text).verdict for p, text in found]
    assert Verdict.UNPARSEABLE in verdicts
    assert set(verdicts) <= {Verdict.RIGHT, Verdict.UNPARSEABLE}
    assert all(len(text.split()) <= 60 for _, text in found)
    assert all(task.verify(p, text).verdict is Verdict.RIGHT for p, text in task.demonstrations(30, 0, **options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"number": [3]}, "did you mean 'numbers'"),
        ({"numbers": [1]}, "between 2 and 5"),
        ({"min_target": 90, "max_target": 20}, "above max_target"),
        ({"train": -1}, "train = -1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        Countdown(**options)


def test_more_problems_than_there_are():
    with pytest.raises(InputError, match="ask for fewer"):
        Countdown(numbers=(2,), max_number=5, train=500).problems()
    with pytest.raises(InputError, match="41 or more"):
        list(Countdown(numbers=(5,)).demonstrations(1, 0, skill=0.0, max_words=40))


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("7 - 3 = 4 yes answer ( 7 - 3 ) * 5 and then much more", len("7 - 3 = 4 yes answer ( 7 - 3 ) * 5 ")),
        ("answer 3 + 4 answer 5", len("answer 3 + 4 ")),
        ("answer 3 + 4" + " 5" * 50, len("answer ") + 30),
        ("3 + 4 = 7 no back", None),
    ],
)
def test_the_first_answer_ends_where_its_expression_ends(text, end):
    problem = Problem(id="p", prompt="", meta={"numbers": [3, 4, 5]})
    assert Countdown().answer_end(problem, text) == end
    assert Countdown(extract="boxed").answer_end(problem, r"so \boxed{3+4} or \boxed{5}") == len(r"so \boxed{3+4}")
