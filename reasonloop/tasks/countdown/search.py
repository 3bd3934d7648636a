"""Countdown as a search space: legal steps, exact solution counts, and randomised depth-first search traces."""

from __future__ import annotations

import heapq
import itertools
import operator
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import combinations
from random import Random
from typing import NamedTuple

MAX_VALUE = 199
"""The largest number that has a word in the bundled tokenizer, and so the largest intermediate result of a trace."""

STEP_WORDS = 6
"""`25 + 7 = 32 ;`"""

Numbers = tuple[int, ...]
"""The numbers that are still to be combined, sorted upwards."""

OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.floordiv,
}


class Step(NamedTuple):
    """One combination of two available numbers, `left op right = result`; the larger number is on the left."""

    left: int
    op: str
    right: int
    result: int

    def words(self) -> list[str]:
        return [str(self.left), self.op, str(self.right), "=", str(self.result), ";"]


def combine(left: int, right: int) -> Iterator[tuple[str, int]]:
    """The (operation, result) pairs of `left op right` for left >= right >= 1.

    Results are integers in 1..MAX_VALUE. Multiplying or dividing by 1 is left out: it only drops a number.
    """
    if left + right <= MAX_VALUE:
        yield "+", left + right
    if left > right:
        yield "-", left - right
    if right > 1:
        if left * right <= MAX_VALUE:
            yield "*", left * right
        if left % right == 0:
            yield "/", left // right


def steps(numbers: Numbers) -> list[Step]:
    """Every distinct legal step from `numbers` (sorted upwards), in a fixed order; never empty for two or more."""
    pairs = dict.fromkeys((right, left) for right, left in combinations(numbers, 2))
    return [Step(left, op, right, result) for right, left in pairs for op, result in combine(left, right)]


def after(numbers: Numbers, step: Step) -> Numbers:
    """The available numbers once `step` is taken."""
    rest = list(numbers)
    rest.remove(step.left)
    rest.remove(step.right)
    return tuple(sorted([*rest, step.result]))


@lru_cache(maxsize=200_000)
def solution_counts(numbers: Numbers) -> dict[int, int]:
    """How many expressions over all of `numbers` reach each value: {value: count}. Don't change the result.

    Expressions are trees of legal steps; two that differ only by a + b against b + a or a * b against b * a count
    as one, and equal numbers are interchangeable. Dynamic programming over the unordered splits of the multiset.
    """
    if len(numbers) == 1:
        return {numbers[0]: 1}
    counts: Counter[int] = Counter()
    for part, rest in _splits(numbers):
        twins = part == rest
        for u, count_u in solution_counts(part).items():
            for v, count_v in solution_counts(rest).items():
                if twins and v > u:
                    continue  # the same two trees come again with u and v exchanged
                for op, result in combine(max(u, v), min(u, v)):
                    ways = count_u * count_v
                    if u == v and twins and op in "+*":
                        ways = count_u * (count_u + 1) // 2
                    elif u == v and not twins and op == "/":
                        ways *= 2  # either tree may be the divisor
                    counts[result] += ways
    return dict(counts)


def _splits(numbers: Numbers) -> set[tuple[Numbers, Numbers]]:
    """The unordered ways to deal a sorted multiset into two non-empty parts."""
    found = set()
    for size in range(1, len(numbers) // 2 + 1):
        for chosen in combinations(range(len(numbers)), size):
            part = tuple(numbers[i] for i in chosen)
            rest = tuple(n for i, n in enumerate(numbers) if i not in chosen)
            found.add((part, rest) if (len(part), part) <= (len(rest), rest) else (rest, part))
    return found


def solution_path(numbers: Numbers, target: int) -> list[Step]:
    """The first list of len(numbers) - 1 steps that reaches `target`; ValueError if there is none."""
    path: list[Step] = []
    while len(numbers) > 1:
        good = (step for step in steps(numbers) if target in solution_counts(after(numbers, step)))
        step = next(good, None)
        if step is None:
            break
        path.append(step)
        numbers = after(numbers, step)
    if numbers != (target,):
        raise ValueError(f"{target} cannot be made of {numbers}")
    return path


def expression(numbers: Sequence[int], path: Sequence[Step]) -> str:
    """The expression that `path` computes, words apart, each compound operand in brackets: `25 + ( 3 * 7 )`."""
    available = [(n, str(n)) for n in numbers]
    for index, step in enumerate(path):
        operands = []
        for value in (step.left, step.right):
            place = next(i for i, (n, _) in enumerate(available) if n == value)
            operands.append(available.pop(place)[1])
        text = f"{operands[0]} {step.op} {operands[1]}"
        available.append((step.result, text if index == len(path) - 1 else f"( {text} )"))
    return available[-1][1]


def success_words(numbers: Sequence[int], path: Sequence[Step]) -> list[str]:
    return ["yes", "answer", *expression(numbers, path).split()]


def ending_words(count: int) -> int:
    """Words of `yes answer` and an expression over `count` numbers with its brackets."""
    return 2 + count + (count - 1) + 2 * max(count - 2, 0)


def shortest_trace(count: int) -> int:
    """Words of a trace over `count` numbers that goes straight to its solution."""
    return STEP_WORDS * (count - 1) + ending_words(count)


class SearchTrace(NamedTuple):
    """What a search wrote down."""

    words: list[str]
    solved: bool
    """False: the search ran out of words, or gave up; `words` then ends after a whole step, `no` or `back`."""


class _OutOfWordsError(Exception):
    pass


def search(
    numbers: Numbers, target: int, rng: Random, *, skill: float, max_words: int, breadth: int = 0
) -> SearchTrace:
    """Randomised depth-first search, written down as a trace of at most `max_words` words.

    At each node, with probability `skill`, steps from which the target can still be reached are tried before the
    others; otherwise the order is random. skill = 1 therefore walks straight to a solution (of a solvable problem)
    and skill = 0 is blind. `breadth` > 0 limits the steps tried at a node below the root before it is given up,
    which makes traces go back over several steps at once.
    """
    words: list[str] = []
    path: list[Step] = []
    budget = max_words - ending_words(len(numbers))

    def write(unit: list[str]) -> None:
        if len(words) + len(unit) > budget:
            raise _OutOfWordsError
        words.extend(unit)

    def solve(state: Numbers) -> bool:
        if len(state) == 1:
            if state[0] == target:
                return True
            write(["no"])
            return False
        for step, _ in _tried(state, target, rng, skill, breadth if path else 0):
            write(step.words())
            path.append(step)
            if solve(after(state, step)):
                return True
            path.pop()
            write(["back"])
        return False

    try:
        solved = solve(tuple(sorted(numbers)))
    except _OutOfWordsError:
        solved = False
    if solved:
        words.extend(success_words(numbers, path))
    return SearchTrace(words, solved)


def best_first_search(
    numbers: Numbers, target: int, rng: Random, *, skill: float, max_words: int, breadth: int = 0
) -> SearchTrace:
    """Randomised best-first search, written down as a trace of at most `max_words` words.

    Of all states seen and not tried yet, the most promising is tried next. At each node, with probability `skill`, the
    steps from which the target can still be reached count as best; otherwise a state is the better, the nearer one of its
    numbers is to the target, times a noise between 0.5 and 1.5. The trace walks there: back to where the two paths part,
    then down again, so that it holds steps that were taken before. `breadth` > 0 limits the steps that are offered at a
    node below the root.
    """
    words: list[str] = []
    here: tuple[Step, ...] = ()
    budget = max_words - ending_words(len(numbers))
    frontier: list[tuple[bool, float, int, tuple[Step, ...], Numbers]] = []
    order = itertools.count()

    def offer(path: tuple[Step, ...], state: Numbers) -> None:
        for step, leads in _tried(state, target, rng, skill, breadth if path else 0):
            left = after(state, step)
            distance = min(abs(number - target) for number in left) * rng.uniform(0.5, 1.5)
            heapq.heappush(frontier, (not leads, distance, next(order), (*path, step), left))

    offer((), tuple(sorted(numbers)))
    while frontier:
        *_, path, state = heapq.heappop(frontier)
        shared = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], zip(here, path, strict=False))))
        unit = ["back"] * (len(here) - shared) + [word for step in path[shared:] for word in step.words()]
        leaf = len(state) == 1
        unit += ["no"] if leaf and state[0] != target else []
        if len(words) + len(unit) > budget:
            return SearchTrace(words, solved=False)
        words += unit
        here = path
        if leaf and state[0] == target:
            return SearchTrace(words + success_words(numbers, path), solved=True)
        if not leaf:
            offer(path, state)
    return SearchTrace(words, solved=False)


def _tried(state: Numbers, target: int, rng: Random, skill: float, breadth: int) -> list[tuple[Step, bool]]:
    """The steps to try from a node, in order, and whether each is known to lead to the target; `breadth` 0: all."""
    candidates = [(step, False) for step in steps(state)]
    rng.shuffle(candidates)
    if rng.random() < skill:
        candidates = [(step, target in solution_counts(after(state, step))) for step, _ in candidates]
        candidates.sort(key=lambda candidate: not candidate[1])
    return candidates[: breadth or None]
