"""Reasoning behaviours over the RL steps: backtracking, self-correction, verification, alternatives, in right and wrong
responses (RLSP, arXiv 2502.06773)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from reasonloop.records import Problem
from reasonloop.report.figures import Figure, rounded
from reasonloop.report.findings import Analyses
from reasonloop.report.run import Run
from reasonloop.report.sample import prompt_decoder

if TYPE_CHECKING:
    import duckdb

BINS = 12
PER_BIN = 40
"""Right responses of each bin that are read, and as many wrong ones"""
COLOURS = {"backtracking": "vanilla", "self_correction": "wrong", "verification": "right", "alternative": "main"}

_TRACE_PROMPT = re.compile(r"\s*(\d+) from ((?:\d+ )+):\s*")

_SAMPLE = """
WITH bins AS (SELECT unnest($1) AS series, unnest($2) AS branch, unnest($3) AS iteration, unnest($4) AS step,
                     unnest($5) AS bin),
turns AS (
    SELECT series, bin, verdict = 'right' AS is_right, problem_id, branch, iteration, step, sample,
           row_number() OVER (
               PARTITION BY series, bin, verdict = 'right'
               ORDER BY md5(concat_ws('|', problem_id, branch, iteration, step, sample))
           ) AS turn
    FROM rollouts JOIN bins USING (branch, iteration, step)
)
SELECT series, bin, is_right, n_tokens, text, prompt_tokens
FROM rollouts JOIN (SELECT * FROM turns WHERE turn <= $6) USING (problem_id, branch, iteration, step, sample)
ORDER BY series, bin, is_right, problem_id, branch, iteration, step, sample
"""


def behaviours(run: Run, database: duckdb.DuckDBPyConnection, found: Analyses) -> None:
    """Adds a figure a series: behaviours per 1,000 tokens in right (plain) and wrong (dashed) responses, over the RL steps.

    Countdown's search traces are counted exactly, all other text by the lexicon. A sample of the store is read.
    """
    from reasonloop.analysis.behaviours import per_1000_tokens

    rows = _rows(run, database)
    if not rows:
        return
    decode = prompt_decoder(run.folder)
    sums: dict[tuple[str, int, bool], tuple[int, dict[str, int]]] = {}
    exact = 0
    for series, bin_, right, tokens, text, prompt in rows:
        counts, parsed = _count(text, decode(prompt), run.option("task", "name"))
        exact += parsed
        total, known = sums.get((series, bin_, right), (0, {}))
        sums[series, bin_, right] = total + tokens, {name: known.get(name, 0) + many for name, many in counts.items()}
    rates = {key: per_1000_tokens(counts, tokens) for key, (tokens, counts) in sums.items() if tokens}
    middles = _middles(run)
    figures = [_figure(series, rates, middles[series]) for series in middles]
    found.figures += [figure for figure in figures if figure["traces"]]
    how = (
        "counted exactly in the search traces"
        if exact == len(rows)
        else "counted by a lexicon of natural language, repeated and quoted passages left out"
    )
    found.note("behaviours-section", f"{how[0].upper()}{how[1:]}, in {len(rows):,} of the stored rollouts.")


def _rows(run: Run, database: duckdb.DuckDBPyConnection) -> list[tuple[Any, ...]]:
    """Series, bin, whether right, tokens, text and prompt tokens of the sampled rollouts."""
    places: list[tuple[str, str, int, int, int]] = []
    for series, lines in run.rl_steps().items():
        for i, line in enumerate(lines):
            address = (str(line.get("branch") or "main"), int(line.get("iteration") or 0), int(line.get("step") or 0))
            places.append((series, *address, i * min(BINS, len(lines)) // len(lines)))
    if not places:
        return []
    columns = [list(column) for column in zip(*places, strict=True)]
    return database.execute(_SAMPLE, [*columns, PER_BIN]).fetchall()


def _middles(run: Run) -> dict[str, list[float]]:
    """By series: the RL step (from 1) in the middle of each bin."""
    middles = {}
    for series, lines in run.rl_steps().items():
        bins = min(BINS, len(lines))
        steps = [[i + 1 for i in range(len(lines)) if i * bins // len(lines) == b] for b in range(bins)]
        middles[series] = [(own[0] + own[-1]) / 2 for own in steps]
    return middles


def _count(text: str, prompt: str, task: Any) -> tuple[dict[str, int], bool]:
    from reasonloop.analysis.behaviours import countdown_behaviours, language_behaviours

    trace = _TRACE_PROMPT.fullmatch(prompt) if task == "countdown" else None
    if trace is None:
        return language_behaviours(text, prompt).behaviours, False
    meta = {"target": int(trace[1]), "numbers": [int(word) for word in trace[2].split()]}
    return countdown_behaviours(Problem(id="", prompt=prompt, meta=meta), text).behaviours, True


def _figure(series: str, rates: dict[tuple[str, int, bool], dict[str, float]], middles: Sequence[float]) -> Figure:
    traces: list[Figure] = []
    for right in (True, False):
        for name, colour in COLOURS.items():
            ys = [rates.get((series, b, right), {}).get(name) for b in range(len(middles))]
            if any(ys):
                label = name.replace("_", "-") if right else "in wrong responses"
                ends = {"x": list(middles), "y": [rounded(y) for y in ys]}
                traces.append({"series": colour, "name": label, "kind": "line" if right else "dashed", **ends})
    return {"id": f"behaviours-{series}", "x": "RL step", "yRange": [0, None], "traces": traces}
