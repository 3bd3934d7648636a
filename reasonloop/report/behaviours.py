"""Reasoning behaviours over the RL steps: backtracking, self-correction, verification, alternatives, in right and wrong
responses (RLSP, arXiv 2502.06773)."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import Any

import duckdb

from reasonloop.analysis.behaviours import countdown_behaviours, language_behaviours, per_1000_tokens
from reasonloop.records import Problem
from reasonloop.report.figures import Analyses, Figure, of_arm, rounded
from reasonloop.report.run import RunData
from reasonloop.report.sample import prompt_decoder

BINS = 12
PER_BIN = 40
"""Right responses of each bin that are read, and as many wrong ones"""
COLOURS = {"backtracking": "vanilla", "self_correction": "wrong", "verification": "right", "alternative": "main"}

Bin = tuple[str, int]
"""An arm, and a stretch of its RL steps"""

_TRACE_PROMPT = re.compile(r"\s*(\d+) from ((?:\d+ )+):\s*")

_SAMPLE = """
WITH bins AS (SELECT unnest($1) AS arm, unnest($2) AS bin, unnest($3) AS branch, unnest($4) AS iteration,
                     unnest($5) AS step),
turns AS (
    SELECT arm, bin, verdict = 'right' AS is_right, problem_id, branch, iteration, step, sample,
           row_number() OVER (
               PARTITION BY arm, bin, verdict = 'right'
               ORDER BY md5(concat_ws('|', problem_id, branch, iteration, step, sample))
           ) AS turn
    FROM rollouts JOIN bins USING (branch, iteration, step)
)
SELECT arm, bin, is_right, n_tokens, text, prompt_tokens
FROM rollouts JOIN (SELECT * FROM turns WHERE turn <= $6) USING (problem_id, branch, iteration, step, sample)
ORDER BY arm, bin, is_right, problem_id, branch, iteration, step, sample
"""


def behaviours(run: RunData, database: duckdb.DuckDBPyConnection, found: Analyses) -> None:
    """Adds a figure an arm: behaviours per 1,000 tokens in right (plain) and wrong (dashed) responses, over the RL steps.

    Countdown's search traces are counted exactly, all other text by the lexicon. A sample of the store is read.
    """
    places: list[tuple[str, int, str, int, int]] = []
    steps: dict[Bin, list[int]] = defaultdict(list)  # counted from 1
    for arm, lines in run.rl_steps().items():
        for i, line in enumerate(lines):
            bin_ = i * min(BINS, len(lines)) // len(lines)
            steps[arm, bin_].append(i + 1)
            places.append((arm, bin_, line["branch"], line["iteration"], line["step"]))
    columns = [list(column) for column in zip(*places, strict=True)]
    rows = database.execute(_SAMPLE, [*columns, PER_BIN]).fetchall() if places else []
    if not rows:
        return
    decode = prompt_decoder(run.folder)
    total: Counter[tuple[Bin, bool]] = Counter()  # tokens
    counts: dict[tuple[Bin, bool], Counter[str]] = defaultdict(Counter)
    exact = 0
    for arm, bin_, right, tokens, text, prompt in rows:
        own, parsed = _count(text, decode(prompt), run.option("task", "name"))
        exact += parsed
        total[(arm, bin_), right] += tokens
        counts[(arm, bin_), right].update(own)
    rates = {key: per_1000_tokens(counts[key], tokens) for key, tokens in total.items() if tokens}
    figures = [_figure(run, arm, rates, {b: own for b, own in steps.items() if b[0] == arm}) for arm in run.rl_steps()]
    found.figures += [figure for figure in figures if figure["traces"]]
    how = (
        "Counted exactly in the search traces"
        if exact == len(rows)
        else "Counted by a lexicon of natural language, repeated and quoted passages left out"
    )
    found.note("behaviours-section", f"{how}, in {len(rows):,} of the stored rollouts.")


def _count(text: str, prompt: str, task: Any) -> tuple[dict[str, int], bool]:
    """How often each behaviour occurs, and whether that is exact."""
    trace = _TRACE_PROMPT.fullmatch(prompt) if task == "countdown" else None
    if trace is None:
        return language_behaviours(text, prompt).behaviours, False
    meta = {"target": int(trace[1]), "numbers": [int(word) for word in trace[2].split()]}
    return countdown_behaviours(Problem(id="", prompt=prompt, meta=meta), text).behaviours, True


def _figure(
    run: RunData, arm: str, rates: dict[tuple[Bin, bool], dict[str, float]], steps: dict[Bin, list[int]]
) -> Figure:
    middles = [(own[0] + own[-1]) / 2 for own in steps.values()]
    traces: list[Figure] = []
    for right in (True, False):
        for name, colour in COLOURS.items():
            ys = [rates.get((bin_, right), {}).get(name) for bin_ in steps]
            if any(ys):
                label, kind = (name.replace("_", "-"), "line") if right else ("in wrong responses", "dashed")
                traces.append(
                    {"series": colour, "name": label, "kind": kind, "x": middles, "y": list(map(rounded, ys))}
                )
    return of_arm(run, arm, "behaviours", x="RL step", xWhole=True, yRange=[0, None], traces=traces)
