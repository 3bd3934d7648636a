"""The trace parser against a replay from scratch at every word."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reasonloop.records import Problem
from reasonloop.tasks.countdown.task import Countdown
from reasonloop.tasks.countdown.trace import parse_trace

PROBLEM = Problem(id="p", prompt="46 from 3 7 25 :", meta={"numbers": [3, 7, 25], "target": 46})


def state_after(numbers, taken):
    """Replays the steps that are not undone."""
    state = list(numbers)
    for a, _, b, c in taken:
        rest = list(state)
        if a in rest and (rest.remove(a) or True) and b in rest:
            rest.remove(b)
            state = [*rest, c]
    return state


def replayed_kinds(numbers, target, units):
    """What each of a list of units (steps as tuples, or words) is, from a replay of all that is before it."""
    kinds, taken = [], []
    for unit in units:
        state = state_after(numbers, taken)
        if unit == "back":
            kinds.append("backtrack" if taken else "false_backtrack")
            taken = taken[:-1]
        elif unit == "no":
            kinds.append("dead_end" if len(state) == 1 and state[0] != target else "false_dead_end")
        elif unit == "yes":
            kinds.append("success" if state == [target] else "false_success")
        else:
            a, op, b, c = unit
            exact = {"+": a + b, "-": a - b, "*": a * b, "/": Fraction(a, b) if b else None}[op]
            legal = a in state and b in state and (a != b or state.count(a) > 1)
            kinds.append("illegal_step" if not legal else "step" if exact == c else "wrong_step")
            taken = [*taken, unit]
    return kinds


WORDS = ["3", "7", "25", "+", "*", "=", ";", "no", "back", "yes", "answer", "(", "46", "?"]
small = st.integers(0, 9)
units = st.lists(
    st.one_of(
        st.sampled_from(["back", "no", "yes"]),
        st.tuples(small, st.sampled_from("+-*/"), small, small),
        st.tuples(small, small).map(lambda p: (p[0], "+", p[1], p[0] + p[1])),
    ),
    max_size=20,
)


@settings(max_examples=300)
@given(st.lists(small, min_size=2, max_size=4), small, units)
def test_kinds_equal_a_replay(numbers, target, sequence):
    text = " ".join(unit if isinstance(unit, str) else "{} {} {} = {} ;".format(*unit) for unit in sequence)
    spans = parse_trace(Problem(id="p", prompt="", meta={"numbers": numbers, "target": target}), text)
    assert [span.kind for span in spans] == replayed_kinds(numbers, target, sequence)


@given(st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join))
def test_spans_hold_the_whole_text(text):
    assert " ".join(span.text for span in parse_trace(PROBLEM, text)) == text


def test_a_trace_with_everything():
    text = (
        "25 + 7 = 32 ; 32 + 3 = 35 ; no back 32 - 3 = 28 ; no back back 7 * 3 = 21 ; "
        "25 * 7 = 175 ; back back back yes no 7 * 3 = 21 ; 25 + 21 = 46 ; yes what answer 25 + ( 7 * 3 )"
    )
    assert [span.kind for span in parse_trace(PROBLEM, text)] == [
        *("step", "step", "dead_end", "backtrack", "wrong_step", "dead_end", "backtrack", "backtrack", "step"),
        *("illegal_step", "backtrack", "backtrack", "false_backtrack", "false_success", "false_dead_end"),
        *("step", "step", "success", "other", "answer"),
    ]


@pytest.mark.parametrize(("skill", "breadth", "numbers"), [(0.0, 0, (3,)), (0.3, 2, (3, 4)), (1.0, 3, (4,))])
def test_demonstrations_parse_without_a_fault(skill, breadth, numbers):
    task = Countdown(numbers=numbers)
    for problem, text in task.demonstrations(60, 1, skill=skill, breadth=breadth, success_only=False):
        kinds = [span.kind for span in parse_trace(problem, text)]
        assert set(kinds) <= {"step", "dead_end", "backtrack", "success", "answer"}
        assert kinds.count("answer") == kinds.count("success") <= 1
        depth = leaves = 0
        for kind in kinds:
            depth += (kind == "step") - (kind == "backtrack")
            leaves += kind == "step" and depth == len(problem.meta["numbers"]) - 1
        assert leaves == kinds.count("dead_end") + kinds.count("success") or "answer" not in kinds
        if skill == 1:
            assert not {"dead_end", "backtrack"} & set(kinds)
