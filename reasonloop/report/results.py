"""The report's result tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from reasonloop.evaluation.metrics import avg_at_k, paired_bootstrap, pass_at_k
from reasonloop.evaluation.table import Row, metric_keys, result_rows
from reasonloop.report.run import Run, number


def results_section(run: Run) -> str:
    """The result table with intervals, and paired differences between the arms; empty before any evaluation."""
    rows = result_rows(run.evals, run.method)
    if not rows:
        return ""
    columns = metric_keys([row.evaluation for row in rows])
    head = [heading_cell(heading) for _, heading in columns]
    body = []
    for row in rows:
        cells = "".join(estimate_cell(row.evaluation["metrics"].get(key)) for key, _ in columns)
        dot = run.series(row.evaluation)
        if row.evaluation.get("stage") == "explore" and dot == "main" and run.method == "rloop":
            dot += " hollow"
        spent = number(row.evaluation, "rollouts")
        seconds = number(row.evaluation, "seconds")
        body.append(
            f'<tr class="{"strong" if row.evaluation.get("stage") == "rft" else ""}">'
            f'<th scope="row"><span class="dot {dot}"></span>{escape(row.label)}</th>{cells}'
            f"<td>{'–' if spent is None else f'{spent:,.0f}'}<small>{duration(seconds)}</small></td></tr>"
        )
    e = rows[-1].evaluation
    problems = f"{len(e['problems'])} held-out problems" if e.get("problems") else "Held-out problems"
    samples = f" × {e['samples']} samples" if e.get("samples") else ""
    return (
        '<section id="results"><h2>Results</h2>'
        f"<p>{escape(problems + samples)}; small figures are 95 % intervals (bootstrap over problems). "
        "The last column is what training had spent by then.</p>"
        f"{html_table([*head, '<th>rollouts<small>time</small></th>'], body)}"
        f"{_differences(run, rows, [key for key, _ in columns])}</section>"
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


def _differences(run: Run, rows: Sequence[Row], keys: Sequence[str]) -> str:
    """Differences between policies on the same problems: the numbers that answer the question."""
    by_series: dict[str, Row] = {}
    for row in rows:
        if row.evaluation.get("problems"):
            by_series[run.series(row.evaluation)] = row
    order = (
        ("main", "vanilla"),
        ("main", "sft"),
        ("main", "base"),
        ("vanilla", "sft"),
        ("vanilla", "base"),
        ("sft", "base"),
    )
    body = []
    for a, b in order:
        if a not in by_series or b not in by_series:
            continue
        cells = "".join(_difference(by_series[a].evaluation, by_series[b].evaluation, key) for key in keys)
        label = f'{escape(by_series[a].label)} <span class="against">against</span> {escape(by_series[b].label)}'
        body.append(f'<tr><th scope="row">{label}</th>{cells}</tr>')
    if not body:
        return ""
    return (
        "<h3>Differences on the same problems</h3>"
        "<p>An interval that leaves out zero is marked; P is the share of resamples in which the first one leads.</p>"
        f"{html_table([heading_cell(key) for key in keys], body, 'differences')}"
    )


def _difference(a: Mapping[str, Any], b: Mapping[str, Any], key: str) -> str:
    values_a, values_b = _per_problem(a, key), _per_problem(b, key)
    shared = sorted(values_a.keys() & values_b.keys())
    if not shared:
        return "<td>–</td>"
    diff, lo, hi, p = paired_bootstrap([values_a[i] for i in shared], [values_b[i] for i in shared])
    mark = "up" if lo > 0 else "down" if hi < 0 else ""
    return (
        f'<td class="{mark}"><b>{signed(diff)}</b><small>{signed(lo)} to {signed(hi)}</small>'
        f"<small>P {p:.2f}</small></td>"
    )


def _per_problem(evaluation: Mapping[str, Any], key: str) -> dict[str, float]:
    """Each problem's own estimate of the metric `key`; empty where it can't be had."""
    name, _, k = key.partition("@")
    try:
        problems = evaluation["problems"]
        n, c = [p["n"] for p in problems], [p["correct"] for p in problems]
        if name == "avg" and int(k) != n[0]:
            return {}
        values = avg_at_k(c, n) if name == "avg" else pass_at_k(n, c, int(k))
    except (KeyError, IndexError, ValueError):
        return {}
    return dict(zip((str(p["id"]) for p in problems), values.tolist(), strict=True))


def duration(seconds: float | None) -> str:
    """ "42 s", "9 min 12 s", "3 h 5 min"; a dash for None."""
    if seconds is None:
        return "–"
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {s} s" if minutes else f"{s} s"


def signed(value: float) -> str:
    """ "+0.123", with a real minus sign."""
    return f"{value:+.3f}".replace("-", "−")
