"""Emergent behaviours, counted: backtracking, self-correction, verification, alternatives (RLSP, arXiv 2502.06773).

Countdown traces are counted exactly, through their parser; natural language by the lexicon (`analysis.lexicon`), whose
precision and recall on a hand-labelled sample are in evidence/behaviours/precision.json. What is repeated counts once,
so that a loop can't pass for thinking.
"""

from __future__ import annotations

import math
import re
import tomllib
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reasonloop.analysis.arms import database
from reasonloop.analysis.lexicon import BEHAVIOURS, compiled
from reasonloop.analysis.ngrams import ngram_hashes
from reasonloop.errors import InputError
from reasonloop.records import Problem
from reasonloop.tasks.countdown.trace import parse_trace

if TYPE_CHECKING:
    import duckdb
    from numpy.typing import NDArray

NGRAM = 8
"""Words. A sentence's behaviour that lies in a run of so many words that came before, in the same text, is repeated."""

QUOTE = 6
"""Words. A run of so many words that the prompt holds too is a quote of it."""

_BLOCK = 5_000  # rollouts in memory at once
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|[\r\n]+")
_WORD = re.compile(r"\w+")
_SPACES = re.compile(r"[ \t\f\v\xa0]{2,}|[\t\f\v\xa0]")


@dataclass(frozen=True, slots=True)
class Counts:
    """How often each behaviour occurs in one response."""

    behaviours: dict[str, int]
    """By name (`lexicon.BEHAVIOURS`), repeated and quoted ones left out"""
    repeated: dict[str, int]
    """Left out because the same was there before"""
    quoted: dict[str, int] = field(default_factory=lambda: dict.fromkeys(BEHAVIOURS, 0))
    """Left out because the prompt says it (natural language only)"""
    nodes: int = 0
    """Search effort (Countdown only): nodes of the search tree that were visited, each once, the root not counted"""


def countdown_behaviours(problem: Problem, text: str) -> Counts:
    """The behaviours of a Countdown trace, exactly.

    A place in the search tree is the path of available-number steps that leads there from the root; operands of + and *
    are interchangeable. A step that uses a number which isn't available leads nowhere: it has no place.

    - backtracking: a run of `back` that ends at another place than it began at; once for each pair of places.
    - alternative: a right step to a new place, from a place from which another step was taken and undone; once a place.
    - verification: `no` or `yes` at a leaf, and true: the result was compared with the target. One for each visit of a
      leaf, and one for each leaf.
    - self_correction: an error that is taken back unasked: a step with wrong arithmetic or an unavailable number that a
      `back` follows directly, before any verdict on it; or a false verdict that is directly followed by the true one.
      Once for each step or leaf.

    `problem.meta` must hold `numbers` and `target`. Linear in the length of the text.
    """
    tally = _Tally()
    root: tuple[object, ...] = ()
    paths = [root]  # the place after each step that is not undone; an unavailable number repeats the place before it
    visited: set[tuple[object, ...]] = {root}
    undone_below: set[tuple[object, ...]] = set()
    nodes, judged = 0, False
    run_from: tuple[object, ...] | None = None
    before, before_text = "", ""
    spans = parse_trace(problem, text).spans
    for span in spans:
        kind, words = span.kind, span.text
        if kind == "backtrack":
            if run_from is None:
                run_from = paths[-1]
                if before in ("wrong_step", "illegal_step"):
                    tally.add("self_correction", (paths[-1], before_text))
            left = paths.pop()
            if left != paths[-1]:
                undone_below.add(paths[-1])
        elif kind != "false_backtrack" and run_from is not None:
            if run_from != paths[-1]:
                tally.add("backtracking", (run_from, paths[-1]))
            run_from = None
        if kind in ("step", "wrong_step"):
            place = (paths[-1], _step_key(words))
            new = place not in visited
            if kind == "step":
                nodes += new
                if paths[-1] in undone_below and (new or place in tally.seen["alternative"]):
                    tally.add("alternative", place)
            visited.add(place)
            paths.append(place)
            judged = False
        elif kind == "illegal_step":
            paths.append(paths[-1])
            judged = False
        elif kind in ("dead_end", "success"):
            if not judged:
                tally.add("verification", paths[-1])
            elif before in ("false_success", "false_dead_end"):
                tally.add("self_correction", (paths[-1], "verdict"))
            judged = True
        elif kind in ("false_dead_end", "false_success"):
            judged = True
        before, before_text = kind, words
    if run_from is not None and run_from != paths[-1]:
        tally.add("backtracking", (run_from, paths[-1]))
    return Counts(tally.counts, tally.repeated, nodes=nodes)


def _step_key(words: str) -> tuple[str, ...]:
    """The same for a + b = c and b + a = c."""
    left, op, right, _, result, _ = words.split()
    if op in "+*" and int(left) < int(right):
        left, right = right, left
    return left, op, right, result


class _Tally:
    """Counts each behaviour once at each place."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(BEHAVIOURS, 0)
        self.repeated = dict.fromkeys(BEHAVIOURS, 0)
        self.seen: dict[str, set[object]] = {behaviour: set() for behaviour in BEHAVIOURS}

    def add(self, behaviour: str, place: object) -> None:
        if place in self.seen[behaviour]:
            self.repeated[behaviour] += 1
        else:
            self.seen[behaviour].add(place)
            self.counts[behaviour] += 1


def language_behaviours(text: str, prompt: str = "") -> Counts:
    """The behaviours of natural language, by the lexicon; linear in the length of the text.

    A behaviour counts at most once a sentence (ended by . ! ? or a line break). What lies in a run of NGRAM words that the
    text held before is repeated, so that a loop counts as often as its sentences differ; what lies in a run of QUOTE
    words that the prompt holds is quoted.
    """
    found = _matches(text)
    counts, repeated, quoted = (dict.fromkeys(BEHAVIOURS, 0) for _ in range(3))
    if not found:
        return Counts(counts, repeated, quoted)
    known: dict[str, int] = {}
    words = _word_ids(" ".join(_sentences(text)), known)
    again = _covered(ngram_hashes(words, NGRAM), NGRAM, len(words))
    given = np.zeros(len(words), dtype=bool)
    if prompt:
        asked = ngram_hashes(_word_ids(" ".join(_sentences(prompt)), known), QUOTE)
        given = _covered(ngram_hashes(words, QUOTE), QUOTE, len(words), asked)
    for behaviour, places in found:
        own = [slice(start, stop) for start, stop in places]
        fresh = [place for place in own if not _all(given[place])]
        if not fresh:
            quoted[behaviour] += 1
        elif all(_all(again[place]) for place in fresh):
            repeated[behaviour] += 1
        else:
            counts[behaviour] += 1
    return Counts(counts, repeated, quoted)


def per_1000_tokens(behaviours: Mapping[str, int], tokens: int) -> dict[str, float]:
    """Each count per 1,000 tokens; NaN for no tokens. ValueError for a negative number of tokens."""
    if tokens < 0:
        raise ValueError(f"tokens is {tokens}, expected 0 or more")
    return {name: 1000 * count / tokens if tokens else math.nan for name, count in behaviours.items()}


def _matches(text: str) -> list[tuple[str, list[tuple[int, int]]]]:
    """For each sentence and behaviour that is in it: where its matches lie, as ranges of the text's words."""
    found = []
    words_before = 0
    for sentence in _sentences(text):
        for behaviour, entries in compiled().items():
            spans = [
                match.span()
                for cues, pattern in entries
                if any(cue in sentence for cue in cues)
                for match in pattern.finditer(sentence)
            ]
            if spans:
                starts = [word.start() for word in _WORD.finditer(sentence)]
                ends = [word.end() for word in _WORD.finditer(sentence)]
                places = sorted(
                    (words_before + bisect_right(ends, start), words_before + bisect_left(starts, end))
                    for start, end in spans
                )
                found.append((behaviour, places))
        words_before += len(_WORD.findall(sentence))
    return found


def _sentences(text: str) -> list[str]:
    """In the form that the lexicon expects: lower case, plain apostrophes, single spaces."""
    plain = _SPACES.sub(" ", text.lower().replace("’", "'").replace("‘", "'"))
    return [sentence for part in _SENTENCE_END.split(plain) if (sentence := part.strip())]


def _word_ids(text: str, known: dict[str, int]) -> NDArray[np.uint64]:
    return np.array([known.setdefault(word, len(known)) for word in _WORD.findall(text)], dtype=np.uint64)


def _covered(
    grams: NDArray[np.uint64], n: int, words: int, source: NDArray[np.uint64] | None = None
) -> NDArray[np.bool_]:
    """bool [words]: which words lie in an n-gram that is in `source`, or (None) that came before in the same text."""
    if source is None:
        hit = np.ones(len(grams), dtype=bool)
        hit[np.unique(grams, return_index=True)[1]] = False
    else:
        hit = np.isin(grams, source)
    change = np.zeros(words + 1, dtype=np.int64)
    change[: len(grams)] += hit
    change[n : n + len(grams)] -= hit
    return np.cumsum(change[:-1]) > 0


def _all(covered: NDArray[np.bool_]) -> bool:
    """Of a match without a word (a tick mark) nothing is covered."""
    return bool(covered.size and covered.all())


@dataclass(frozen=True, slots=True)
class BehaviourRow:
    """The behaviours of all right, or all other, responses of a bin of RL steps."""

    branch: str
    iteration: int
    bin: int
    first_step: int
    last_step: int
    """Steps that the bin spans, within the iteration"""
    right: bool
    rollouts: int
    tokens: int
    counts: dict[str, int]
    repeated: dict[str, int]
    per_1000: dict[str, float] | None
    """Counts per 1,000 response tokens; None for no tokens"""
    nodes: float | None
    """Countdown traces: mean search effort a response"""


def behaviours_over_steps(
    source: str | Path | duckdb.DuckDBPyConnection,
    task_name: str,
    bins: int = 10,
    *,
    problems: Mapping[str, Problem] | None = None,
    trace: bool | None = None,
) -> list[BehaviourRow]:
    """Behaviours over training, by branch, iteration, bin of RL steps and right or not, of a run's stored rollouts.

    An iteration's steps are cut into `bins` equal parts (fewer for fewer steps); parts without rollouts have no row.
    `trace`: whether responses are Countdown search traces; None: the task is "countdown", and a run folder's recipe, if it
    says, has the format "trace". Their problems are read from the ids. `problems` (id -> problem) gives the prompts whose
    quotes natural language leaves out. InputError for an id that isn't a Countdown problem's.
    """
    if bins < 1:
        raise ValueError(f"bins is {bins}, expected at least 1")
    if trace is None:
        trace = task_name == "countdown" and _recipe_format(source) == "trace"
    known = dict(problems or {})
    tallies: dict[tuple[str, int, int, bool], _Bin] = {}
    edges: dict[tuple[str, int], list[int]] = {}
    with database(source) as opened:
        spans = "SELECT branch, iteration, min(step), max(step) FROM rollouts GROUP BY ALL"
        for branch, iteration, first, last in opened.execute(spans).fetchall():
            count = last - first + 1
            edges[branch, iteration] = [first + count * b // min(bins, count) for b in range(min(bins, count) + 1)]
        rows = opened.execute(
            "SELECT branch, iteration, step, verdict = 'right', problem_id, n_tokens, text FROM rollouts"
        )
        while block := rows.fetchmany(_BLOCK):
            for branch, iteration, step, right, problem_id, n_tokens, text in block:
                if trace:
                    problem = known.get(problem_id) or known.setdefault(problem_id, countdown_problem(problem_id))
                    found = countdown_behaviours(problem, text)
                else:
                    found = language_behaviours(text, prompt_text(known.get(problem_id)))
                place = bisect_right(edges[branch, iteration], step) - 1
                tallies.setdefault((branch, iteration, place, right), _Bin()).add(found, n_tokens)
    return [
        BehaviourRow(
            *(
                branch,
                iteration,
                place,
                edges[branch, iteration][place],
                edges[branch, iteration][place + 1] - 1,
                right,
            ),
            *(own.rollouts, own.tokens, own.counts, own.repeated),
            per_1000=per_1000_tokens(own.counts, own.tokens) if own.tokens else None,
            nodes=own.nodes / own.rollouts if trace else None,
        )
        for (branch, iteration, place, right), own in sorted(tallies.items())
    ]


def countdown_problem(problem_id: str) -> Problem:
    """The part of a Countdown problem that its id holds: numbers and target. InputError for any other id."""
    match = re.fullmatch(r"countdown-(\d+)-(\d+)-(\d+(?:\.\d+)+)", problem_id)
    numbers = [int(number) for number in match[3].split(".")] if match else []
    if match is None or len(numbers) != int(match[1]):
        raise InputError(
            f"behaviours: problem {problem_id!r} is none of Countdown's (countdown-3-46-3.7.25); "
            "expected Countdown traces, or trace=False for natural language"
        )
    return Problem(problem_id, prompt="", meta={"numbers": numbers, "target": int(match[2])})


def prompt_text(problem: Problem | None) -> str:
    """What the policy was asked, as plain text; empty for None."""
    if problem is None:
        return ""
    return problem.prompt or "\n".join(message["content"] for message in problem.messages or ())


class _Bin:
    """Sums over the responses of a bin."""

    def __init__(self) -> None:
        self.rollouts = self.tokens = self.nodes = 0
        self.counts = dict.fromkeys(BEHAVIOURS, 0)
        self.repeated = dict.fromkeys(BEHAVIOURS, 0)

    def add(self, found: Counts, tokens: int) -> None:
        self.rollouts += 1
        self.tokens += tokens
        self.nodes += found.nodes
        for behaviour in BEHAVIOURS:
            self.counts[behaviour] += found.behaviours[behaviour]
            self.repeated[behaviour] += found.repeated[behaviour]


def _recipe_format(source: str | Path | duckdb.DuckDBPyConnection) -> str:
    path = Path(source) / "config.toml" if isinstance(source, str | Path) else None
    if path is None or not path.is_file():
        return "trace"
    return str(tomllib.loads(path.read_text(encoding="utf-8")).get("task", {}).get("format", "trace"))
