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


def replayed_counts(numbers, target, units):
    """The counts of a list of units (steps as tuples, or words), each from a replay of all that is before it."""
    counts = dict.fromkeys(
        ("steps", "wrong_steps", "illegal_steps", "attempts", "dead_ends", "false_dead_ends", "false_backs"), 0
    )
    taken = []
    for unit in units:
        state = state_after(numbers, taken)
        if unit == "back":
            counts["false_backs"] += not taken
            taken = taken[:-1]
        elif unit == "no":
            true = len(state) == 1 and state[0] != target
            counts["dead_ends" if true else "false_dead_ends"] += 1
        else:
            a, op, b, c = unit
            counts["steps"] += 1
            exact = {"+": a + b, "-": a - b, "*": a * b, "/": Fraction(a, b) if b else None}[op]
            counts["wrong_steps"] += exact != c
            legal = a in state and b in state and (a != b or state.count(a) > 1)
            counts["illegal_steps"] += not legal
            taken = [*taken, unit]
            counts["attempts"] += legal and len(state_after(numbers, taken)) == 1
    runs = "".join("b" if unit == "back" else " " for unit in units).split()
    counts["backtracks"] = len(runs)
    return counts


WORDS = ["3", "7", "25", "+", "*", "=", ";", "no", "back", "yes", "answer", "(", "46", "?"]
small = st.integers(0, 9)
units = st.lists(
    st.one_of(
        st.sampled_from(["back", "no"]),
        st.tuples(small, st.sampled_from("+-*/"), small, small),
        st.tuples(small, small).map(lambda p: (p[0], "+", p[1], p[0] + p[1])),
    ),
    max_size=20,
)


@settings(max_examples=300)
@given(st.lists(small, min_size=2, max_size=4), small, units)
def test_counts_equal_a_replay(numbers, target, sequence):
    text = " ".join(unit if isinstance(unit, str) else "{} {} {} = {} ;".format(*unit) for unit in sequence)
    trace = parse_trace(Problem(id="p", prompt="", meta={"numbers": numbers, "target": target}), text)
    expected = replayed_counts(numbers, target, sequence)
    assert {key: getattr(trace, key) for key in expected} == expected
    assert trace.other_words == 0


@given(st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join))
def test_spans_hold_the_whole_text(text):
    trace = parse_trace(PROBLEM, text)
    assert " ".join(span.text for span in trace.spans) == text


def test_a_trace_with_everything():
    text = (
        "25 + 7 = 32 ; 32 + 3 = 35 ; no back 32 - 3 = 28 ; no back back 7 * 3 = 21 ; "
        "25 * 7 = 175 ; back back back yes no 7 * 3 = 21 ; 25 + 21 = 46 ; yes what answer 25 + ( 7 * 3 )"
    )
    trace = parse_trace(PROBLEM, text)
    assert [span.kind for span in trace.spans] == [
        *("step", "step", "dead_end", "backtrack", "wrong_step", "dead_end", "backtrack", "backtrack", "step"),
        *("illegal_step", "backtrack", "backtrack", "false_backtrack", "false_success", "false_dead_end"),
        *("step", "step", "success", "other", "answer"),
    ]
    assert (trace.steps, trace.attempts, trace.solved, trace.backtracks, trace.steps_undone) == (7, 3, 1, 3, 5)
    assert (trace.longest_backtrack, trace.answer, trace.faithful) == (2, True, False)


@pytest.mark.parametrize(("skill", "breadth", "numbers"), [(0.0, 0, (3,)), (0.3, 2, (3, 4)), (1.0, 3, (4,))])
def test_demonstrations_parse_without_a_fault(skill, breadth, numbers):
    task = Countdown(numbers=numbers)
    for problem, text in task.demonstrations(60, 1, skill=skill, breadth=breadth, success_only=False):
        trace = parse_trace(problem, text)
        assert trace.faithful
        assert trace.answer == (trace.solved == trace.successes == 1)
        assert trace.attempts == trace.dead_ends + trace.solved or not trace.answer
        if skill == 1:
            assert trace.dead_ends == trace.backtracks == 0
