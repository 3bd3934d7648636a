"""`reasonloop compare`, the verb."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from reasonloop.compare.arms import read_arms
from reasonloop.compare.study import compare_arms, results
from reasonloop.compare.table import show
from reasonloop.compare.tradeoff import tradeoff
from reasonloop.files import write_atomically

BESIDE_RUNS = (".log", "compare.html")


def compare_runs(
    arguments: Sequence[str],
    out: Path | None = None,
    json_file: Path | None = None,
    every: bool = False,
    baseline: str | None = None,
) -> None:
    """The verb: prints the tables; writes the HTML page and the result file where they are asked for. The arm of the first
    argument is compared with each of the others, or each arm with `baseline`; all other pairs follow."""
    # what studies, and we ourselves, write between the runs: `compare runs/study-x/*` is given it, too
    given = [text for text in arguments if not (Path(text).is_file() and text.endswith(BESIDE_RUNS))]
    found = read_arms(given, every)
    comparisons = compare_arms(found.arms, baseline=baseline)
    curves = tradeoff(found.arms, baseline)
    if json_file is not None:
        write_atomically(json_file, json.dumps(results(found, comparisons, curves), indent=1, allow_nan=False) + "\n")
    if out is not None:
        from reasonloop.compare.page import write_comparison

        write_comparison(found, comparisons, curves, out)
    show(found, comparisons, curves)
    for path in (json_file, out):
        if path is not None:
            print(path)
