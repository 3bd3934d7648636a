"""Emergent behaviours, counted: backtracking, self-correction, verification, alternatives (RLSP, arXiv 2502.06773).

Countdown traces are counted exactly, through their parser; natural language by the lexicon (`analysis.lexicon`), whose
precision and recall on a hand-labelled sample are in evidence/behaviours/precision.json. What is repeated counts once,
so that a loop can't pass for thinking.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from reasonloop.analysis.lexicon import BEHAVIOURS, LEXICON
from reasonloop.analysis.ngrams import ngram_hashes
from reasonloop.records import Problem
from reasonloop.tasks.countdown.trace import Span, parse_trace

if TYPE_CHECKING:
    from numpy.typing import NDArray

NGRAM = 8
"""Words. A sentence's behaviour that lies in a run of so many words that came before, in the same text, is repeated."""

QUOTE = 6
"""Words. A run of so many words that the prompt holds too is a quote of it."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|[\r\n]+")
_WORD = re.compile(r"\w+")
_SPACES = re.compile(r"[ \t\f\v\xa0]{2,}|[\t\f\v\xa0]")


@dataclass(frozen=True, slots=True)
class Counts:
    """How often each behaviour occurs in one response."""

    behaviours: dict[str, int]
    """By name (`lexicon.BEHAVIOURS`), repeated and quoted ones left out"""
    nodes: int = 0
    """Search effort (Countdown only): nodes of the search tree that were visited, each once, the root not counted"""


def countdown_behaviours(problem: Problem, text: str) -> Counts:
    """The behaviours of a Countdown trace, exactly.

    A place in the search tree is the path of available-number steps that leads there from the root; operands of + and *
    are interchangeable. A step that uses a number which isn't available leads nowhere: it has no place.

    - backtracking: a run of `back` that ends at another place than it began at; once for each pair of places.
    - alternative: a right step to a new place, from a place from which another step was taken and undone; once a place.
    - verification: `no` or `yes` at a leaf, and true: the result was compared with the target. Once for each leaf.
    - self_correction: an error that is taken back unasked: a step with wrong arithmetic or an unavailable number that a
      `back` follows directly, before any verdict on it; or a false verdict that is directly followed by the true one.
      Once for each step or leaf.

    `problem.meta` must hold `numbers` and `target`. Linear in the length of the text.
    """
    seen: dict[str, set[object]] = {behaviour: set() for behaviour in BEHAVIOURS}  # where each was
    root: tuple[object, ...] = ()
    paths = [root]  # the place after each step that is not undone; an unavailable number repeats the place before it
    visited: set[tuple[object, ...]] = {root}
    undone_below: set[tuple[object, ...]] = set()
    nodes, judged = 0, False
    run_from: tuple[object, ...] | None = None
    before, before_text = "", ""
    for words, kind in [*parse_trace(problem, text), Span("", "other")]:  # which ends a run of `back`
        if kind == "backtrack":
            if run_from is None:
                run_from = paths[-1]
                if before in ("wrong_step", "illegal_step"):
                    seen["self_correction"].add((paths[-1], before_text))
            left = paths.pop()
            if left != paths[-1]:
                undone_below.add(paths[-1])
        elif kind != "false_backtrack" and run_from is not None:
            if run_from != paths[-1]:
                seen["backtracking"].add((run_from, paths[-1]))
            run_from = None
        if kind in ("step", "wrong_step"):
            place = (paths[-1], _step_key(words))
            if kind == "step" and place not in visited:
                nodes += 1
                if paths[-1] in undone_below:
                    seen["alternative"].add(place)
            visited.add(place)
            paths.append(place)
            judged = False
        elif kind == "illegal_step":
            paths.append(paths[-1])
            judged = False
        elif kind in ("dead_end", "success"):
            if not judged:
                seen["verification"].add(paths[-1])
            elif before in ("false_success", "false_dead_end"):
                seen["self_correction"].add((paths[-1], "verdict"))
            judged = True
        elif kind in ("false_dead_end", "false_success"):
            judged = True
        before, before_text = kind, words
    return Counts({behaviour: len(places) for behaviour, places in seen.items()}, nodes)


def _step_key(words: str) -> tuple[str, ...]:
    """The same for a + b = c and b + a = c."""
    left, op, right, _, result, _ = words.split()
    if op in "+*" and int(left) < int(right):
        left, right = right, left
    return left, op, right, result


def language_behaviours(text: str, prompt: str = "") -> Counts:
    """The behaviours of natural language, by the lexicon; linear in the length of the text.

    A behaviour counts at most once a sentence (ended by . ! ? or a line break). What lies in a run of NGRAM words that the
    text held before is repeated, so that a loop counts as often as its sentences differ; what lies in a run of QUOTE
    words that the prompt holds is quoted.
    """
    sentences = _sentences(text)
    known: dict[str, int] = {}
    words = _word_ids(sentences, known)
    asked = ngram_hashes(_word_ids(_sentences(prompt), known), QUOTE)
    given = _covered(np.isin(ngram_hashes(words, QUOTE), asked), QUOTE, len(words))
    grams = ngram_hashes(words, NGRAM)
    came_before = np.ones(len(grams), dtype=bool)
    came_before[np.unique(grams, return_index=True)[1]] = False
    again = _covered(came_before, NGRAM, len(words))
    counts = dict.fromkeys(BEHAVIOURS, 0)
    words_before = 0
    for sentence in sentences:
        spans = [word.span() for word in _WORD.finditer(sentence)]
        for behaviour, matches in _matches(sentence).items():
            places = [
                slice(
                    words_before + bisect_right(spans, start, key=lambda span: span[1]),
                    words_before + bisect_left(spans, end, key=lambda span: span[0]),
                )
                for start, end in matches
            ]
            counts[behaviour] += any(not _all(given[place]) and not _all(again[place]) for place in places)
        words_before += len(spans)
    return Counts(counts)


def per_1000_tokens(behaviours: Mapping[str, int], tokens: int) -> dict[str, float]:
    """Each count per 1,000 tokens; NaN for no tokens."""
    return {name: 1000 * count / tokens if tokens else math.nan for name, count in behaviours.items()}


def _matches(sentence: str) -> dict[str, list[tuple[int, int]]]:
    """By behaviour that is in the sentence: where, as ranges of characters."""
    found: dict[str, list[tuple[int, int]]] = {}
    for entry in LEXICON:
        if any(cue in sentence for cue in entry.cues.split("|")):
            for match in re.finditer(entry.pattern, sentence):
                found.setdefault(entry.behaviour, []).append(match.span())
    return found


def _sentences(text: str) -> list[str]:
    """In the form that the lexicon expects: lower case, plain apostrophes, single spaces."""
    plain = _SPACES.sub(" ", text.lower().replace("’", "'").replace("‘", "'"))
    return [sentence for part in _SENTENCE_END.split(plain) if (sentence := part.strip())]


def _word_ids(sentences: Sequence[str], known: dict[str, int]) -> NDArray[np.uint64]:
    words = [word for sentence in sentences for word in _WORD.findall(sentence)]
    return np.array([known.setdefault(word, len(known)) for word in words], dtype=np.uint64)


def _covered(hit: NDArray[np.bool_], n: int, words: int) -> NDArray[np.bool_]:
    """bool [words]: which words lie in an n-gram (bool [n-grams]) that was hit."""
    change = np.zeros(words + 1, dtype=np.int64)
    change[: len(hit)] += hit
    change[n : n + len(hit)] -= hit
    return np.cumsum(change[:-1]) > 0


def _all(covered: NDArray[np.bool_]) -> bool:
    """Of a match without a word (a tick mark) nothing is covered."""
    return bool(covered.size and covered.all())
