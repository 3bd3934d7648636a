"""The report's result tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import combinations
from typing import Any

import numpy as np

from reasonloop.evaluation.metrics import largest_k
from reasonloop.evaluation.spread import rights_of, spread
from reasonloop.evaluation.table import PASSED, Record, arm_of, label_of, metric_keys, result_rows, weighed
from reasonloop.report.figures import signed
from reasonloop.report.headline import lead, share
from reasonloop.report.run import RunData, number


def results_section(run: RunData) -> str:
    """The result table with intervals, and paired differences between the arms; empty before any evaluation."""
    rows = result_rows(run.evals)
    if not rows:
        return ""
    columns = metric_keys(rows, votes=True)
    head = [heading_cell(heading) for _, heading in columns]
    body = []
    for row in rows:
        cells = "".join(estimate_cell(row["metrics"].get(key)) for key, _ in columns)
        spent = number(row, "rollouts")
        body.append(
            f'<tr class="{"strong" if row.get("product") else ""}">'
            f'<th scope="row"><span class="dot {escape(arm_of(row))}"></span>{escape(label_of(row))}</th>{cells}'
            f"<td>{'–' if spent is None else f'{spent:,.0f}'}<small>{duration(number(row, 'seconds'))}</small></td></tr>"
        )
    e = rows[-1]
    problems = f"{len(e['problems'])} held-out problems" if e.get("problems") else "Held-out problems"
    samples = f" × {e['samples']} samples" if e.get("samples") else ""
    product = " In bold: the policy that the run delivers." if any(row.get("product") for row in rows) else ""
    return (
        '<section id="results"><h2>Results</h2>'
        f"<p>{escape(problems + samples)}; small figures are 95 % intervals over problems. "
        f"The last column is what training had spent by then.{product}</p>"
        f"{html_table([*head, '<th>rollouts<small>time</small></th>'], body)}"
        f"{_differences(rows, [key for key, _ in columns])}{_spread(run)}</section>"
    )


def html_table(head: Sequence[str], body: Sequence[str], kind: str = "") -> str:
    """A table of ready <th> headings (the row names' one left out) and <tr> rows, scrolling where it is too wide."""
    return (
        f'<div class="scroll"><table class="{kind}" style="--columns:{len(head)}"><thead><tr><th></th>{"".join(head)}'
        f"</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def heading_cell(text: str) -> str:
    """A column's <th>; of "a = b" the second half is small print."""
    main, equals, same = text.partition(" = ")
    return f"<th>{escape(main)}{f'<small>= {escape(same)}</small>' if equals else ''}</th>"


def estimate_cell(metric: Mapping[str, Any] | None) -> str:
    """{"value", "ci95"} as a <td> with its interval below it."""
    if metric is None:
        return "<td>–</td>"
    lo, hi = metric["ci95"]
    return f"<td>{metric['value']:.3f}<small>{lo:.3f} – {hi:.3f}</small></td>"


def _differences(rows: Sequence[Record], keys: Sequence[str]) -> str:
    """Differences between the arms' last policies on the same problems: the numbers that answer the question."""
    counted = [row for row in rows if row.get("problems") and not weighed(arm_of(row))]
    last = {arm_of(row): row for row in counted if arm_of(row) not in PASSED}
    body = []
    for a, b in combinations(reversed(last.values()), 2):
        cells = "".join(_difference(a, b, key) for key in keys)
        label = f'{escape(label_of(a))} <span class="against">against</span> {escape(label_of(b))}'
        body.append(f'<tr><th scope="row">{label}</th>{cells}</tr>')
    if not body:
        return ""
    return (
        "<h3>Differences on the same problems</h3>"
        "<p>The first minus the second, its 95 % interval, and in how many resamples of the problems the first one leads. "
        "An interval that leaves out zero is marked.</p>"
        f"{html_table([heading_cell(key) for key in keys], body, 'differences')}"
    )


def _spread(run: RunData) -> str:
    """What as many samples solve that are spread over an arm's policies on the way."""
    found, k = [], 0
    for arm in run.arms:
        own = [e for e in run.results if arm_of(e) == arm and e.get("problems")]
        try:
            rights = [rights_of(e["problems"]) for e in own]
        except (KeyError, TypeError, ValueError):
            continue
        there = [right_PN for right_PN in rights if right_PN is not None]
        if arm in PASSED or not there or len(there) < len(own) or len({right_PN.shape for right_PN in there}) != 1:
            continue
        k = largest_k(there[0].shape[1])
        if told := spread([np.array(there)], k):
            found.append((arm, run.name(arm), told))
    return spread_section(found, k)


def spread_section(found: Sequence[tuple[str, str, Mapping[str, Any]]], k: int) -> str:
    """(colour, name, what `evaluation.spread` says) of each arm as a table under a heading; empty where there is none."""
    if not found:
        return ""
    body = [
        f'<tr><th scope="row"><span class="dot {escape(colour)}"></span>{escape(name)}, {told["policies"]} policies</th>'
        f"<td>{told['avg']:.3f}</td>{estimate_cell(told['pass'])}"
        f"{difference_cell(told['difference'], told['ci95'], told['sign'])}</tr>"
        for colour, name, told in found
    ]
    head = ["<th>average</th>", f"<th>pass@{k}</th>", "<th>against its last policy</th>"]
    return (
        f"<h3>Spread over the way</h3><p>{k} samples spread evenly over an arm's policies on the way (temporal sampling), "
        "instead of its last one alone: is its diversity in its weights, or in its history?</p>"
        f"{html_table(head, body, 'differences')}"
    )


def difference_cell(value: float, ci95: Sequence[float], sign: int, rest: str = "") -> str:
    """A difference with its interval as a <td>, marked where that leaves out zero (`sign`: of it, or 0)."""
    mark = {1: "up", -1: "down", 0: ""}[sign]
    low, high = map(signed, ci95)
    return f'<td class="{mark}"><b>{signed(value)}</b><small>{low} to {high}</small>{rest}</td>'


def _difference(a: Record, b: Record, key: str) -> str:
    found = lead(a, b, key)
    if found is None:
        return "<td>–</td>"
    leads = f"<small>leads in {share(found.share)}</small>"
    return difference_cell(found.difference, found.ci95, found.sign, leads)


def duration(seconds: float | None) -> str:
    """ "42 s", "9 min 12 s", "3 h 5 min"; a dash for None."""
    if seconds is None:
        return "–"
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {s} s" if minutes else f"{s} s"
