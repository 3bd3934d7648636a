"""Solution counts against enumeration of every expression, and traces against what they claim."""

from collections import Counter
from itertools import combinations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reasonloop.records import Problem, Verdict
from reasonloop.tasks.countdown.search import (
    MAX_VALUE,
    after,
    best_first_search,
    expression,
    search,
    solution_counts,
    solution_path,
    steps,
)
from reasonloop.tasks.countdown.task import Countdown
from reasonloop.tasks.countdown.trace import parse_trace


def every_expression(numbers: list[int], limit: int) -> set[tuple[str, int]]:
    """All (canonical text, value) trees, by combining any two numbers until one is left."""
    if len(numbers) == 1:
        return set()
    found: set[tuple[str, int]] = set()

    def go(items: list[tuple[int, str]]) -> None:
        if len(items) == 1:
            found.add((items[0][1], items[0][0]))
            return
        for i, j in combinations(range(len(items)), 2):
            rest = [item for k, item in enumerate(items) if k not in (i, j)]
            for (a, s), (b, t) in ((items[i], items[j]), (items[j], items[i])):
                low, high = sorted((s, t))
                results = [(a + b, f"({low}+{high})")]
                if min(a, b) > 1:
                    results.append((a * b, f"({low}*{high})"))
                if a > b:
                    results.append((a - b, f"({s}-{t})"))
                if b > 1 and a % b == 0:
                    results.append((a // b, f"({s}/{t})"))
                for value, text in results:
                    if value <= limit:
                        go([*rest, (value, text)])

    go([(n, str(n)) for n in numbers])
    return found


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=2, max_size=4))
def test_solution_counts_equal_enumeration(numbers):
    expected = Counter(value for _, value in every_expression(numbers, MAX_VALUE))
    assert solution_counts(tuple(sorted(numbers))) == expected


@given(st.lists(st.integers(1, MAX_VALUE), min_size=2, max_size=6))
def test_there_is_always_a_legal_step(numbers):
    state = tuple(sorted(numbers))
    while len(state) > 1:
        legal = steps(state)
        assert legal
        assert all(1 <= step.result <= MAX_VALUE for step in legal)
        state = after(state, legal[-1])


TRUE = {"step", "dead_end", "backtrack", "success", "answer"}
numbers_of_problem = st.lists(st.integers(1, 25), min_size=2, max_size=4).map(lambda n: tuple(sorted(n)))


def as_problem(numbers, target) -> Problem:
    return Problem(id="p", prompt="", meta={"numbers": list(numbers), "target": target})


@settings(max_examples=60, deadline=None)
@given(numbers_of_problem, st.data())
def test_solution_paths_verify(numbers, data):
    target = data.draw(st.sampled_from(sorted(solution_counts(numbers))))
    path = solution_path(numbers, target)
    answer = f"answer {expression(numbers, path)}"
    assert Countdown().verify(as_problem(numbers, target), answer).verdict is Verdict.RIGHT


def test_no_path_to_an_unreachable_target():
    with pytest.raises(ValueError, match="cannot be made"):
        solution_path((2, 3), 100)


@settings(max_examples=60, deadline=None)
@given(
    numbers_of_problem,
    st.integers(0, 10**6),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.integers(0, 3),
    st.integers(20, 120),
    st.sampled_from([search, best_first_search]),
    st.data(),
)
def test_search_keeps_its_limits_and_its_word(numbers, seed, skill, breadth, max_words, searcher, data):
    target = data.draw(st.sampled_from(sorted(solution_counts(numbers))))
    trace = searcher(numbers, target, Random(seed), skill=skill, max_words=max_words, breadth=breadth)
    assert len(trace.words) <= max_words
    verdict = Countdown().verify(as_problem(numbers, target), " ".join(trace.words)).verdict
    assert verdict is (Verdict.RIGHT if trace.solved else Verdict.UNPARSEABLE)
    kinds = {span.kind for span in parse_trace(as_problem(numbers, target), " ".join(trace.words))}
    assert kinds <= TRUE
    assert ("answer" in kinds) == trace.solved
    if skill == 1:
        assert "no" not in trace.words
        assert trace.solved or max_words < 40 or searcher is best_first_search


@pytest.mark.parametrize("searcher", [search, best_first_search])
def test_blind_search_without_limits_finds_every_solvable_target(searcher):
    for target in solution_counts((3, 7, 25)):
        assert searcher((3, 7, 25), target, Random(target), skill=0, max_words=10_000).solved
