"""Puts the report together: one HTML file that works from disk, with no network, in light and dark."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from reasonloop.report.figures import Figure, all_figures
from reasonloop.report.results import duration, html_table, results_section
from reasonloop.report.run import Run, number, read_run
from reasonloop.report.sample import browse

OBJECTIVES = {"dapo": "DAPO", "grpo": "GRPO", "dr_grpo": "Dr. GRPO", "rloo": "RLOO", "gspo": "GSPO", "cispo": "CISPO"}
STARTS = {"iteration_start": "the policy that started the iteration", "base": "the base", "explored": "the RL policy"}

# Figure id -> heading and the one sentence that a reader needs; grouped into the page's sections.
SECTIONS: list[tuple[str, str, str, dict[str, tuple[str, str]]]] = [
    (
        "overfitting",
        "Does it generalise?",
        "Reward on the training problems against accuracy on held-out ones, over the rollouts spent. Reward that rises "
        "while held-out accuracy, above all pass@k, stalls or falls is RL overfitting.",
        {
            "reward": ("Training reward", "mean over a step's rollouts"),
            "held-out-avg": ("Held-out {metric}", "95 % intervals"),
            "held-out-pass": ("Held-out {metric}", "95 % intervals"),
        },
    ),
    (
        "pass-at-k-section",
        "Solved with k tries",
        "pass@k is the chance that at least one of k samples is right: k = 1 is everyday accuracy, a large k shows "
        "which problems a policy can reach at all. Bands are 95 % intervals over problems.",
        {"pass-at-k": ("pass@k on held-out problems", "k on a logarithmic axis")},
    ),
    (
        "stability",
        "Is training stable?",
        "Spikes of the gradient norm announce collapses; entropy that runs to zero means that the policy has stopped "
        "exploring.",
        {
            "grad-norm": ("Gradient norm", "before clipping"),
            "entropy": ("Entropy", "nats per token"),
            "kl": ("KL divergence", "nats per token, to the policy that RL started from"),
            "loss": ("Fine-tuning loss", "nats per response token"),
        },
    ),
    (
        "responses",
        "What the responses are like",
        "Length in tokens and what the verifier said, over the RL steps.",
        {
            "length": ("Response length", "mean tokens"),
            "verdicts-vanilla": ("Verdicts, vanilla RL", "share of rollouts"),
            "verdicts-main": ("Verdicts, RLoop", "share of rollouts"),
        },
    ),
]

# Keys of a "select" line in the order in which the selection narrows, with what a reader calls them.
SELECTION = [
    (("seen",), "rollouts"),
    (("right",), "right"),
    (("problems",), "problems"),
    (("hard_problems", "hard"), "hard problems"),
    (("deduplicated", "dedup"), "distinct right on hard"),
    (("selected", "cap", "experts"), "experts"),
]


def write_report(run_folder: Path, out: Path | None = None) -> Path:
    """Write the report of the run in `run_folder` to `out` (default: RUN/report.html) and return its path.

    Works at any time: pieces that a run doesn't have yet are named in the report. The file is replaced at once, so that
    a reader never sees half of it. InputError if `run_folder` is no run folder.
    """
    run = read_run(run_folder)
    path = out if out is not None else run_folder / "report.html"
    page = render(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(page.encode("utf-8", errors="xmlcharrefreplace"))
    os.replace(temporary, path)
    return path


def render(run: Run) -> str:
    """The whole page as a string."""
    from plotly.offline import get_plotlyjs

    figures = all_figures(run)
    rollouts = browse(run)
    script = _asset("report.js")
    plotly = get_plotlyjs()
    # Only these two scripts may run and nothing may be fetched: model text that got past the escaping is still dead.
    scripts = f"{_hash(plotly)} {_hash(script)}"
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; script-src {scripts}"
    names = {"main": _name(run), "vanilla": "vanilla RL"}
    data = {"figures": figures, "names": names, **rollouts}
    body = "\n".join(
        [
            _header(run),
            _missing(run),
            results_section(run),
            *(_section(*section, figures=figures) for section in SECTIONS),
            _experts(run, rollouts["experts"]),
            _browser(rollouts),
            _configuration(run),
        ]
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(_title(run))} · ReasonLoop</title>
<link rel="icon" href="data:,">
<style>{_asset("report.css")}</style>
</head>
<body>
<main>
{body}
</main>
<script type="application/json" id="data">{embedded(data)}</script>
<script>{plotly}</script>
<script>{script}</script>
</body>
</html>
"""


def embedded(data: Any) -> str:
    """`data` as JSON that may stand inside a <script> element whatever text it holds: no <, >, & and only ASCII.

    Numbers that JSON doesn't know (NaN, infinities) become null.
    """
    text = json.dumps(_finite(data), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _name(run: Run) -> str:
    return {"rl": "vanilla RL", "sft": "SFT"}.get(run.method, "RLoop")


def _title(run: Run) -> str:
    return f"{_name(run)} on {run.option('task', 'name', 'a task')}"


def _header(run: Run) -> str:
    return f'<header>\n<h1>{escape(_title(run))}</h1>\n<p class="lead">{escape(sentence(run))}</p>\n</header>'


def sentence(run: Run) -> str:
    """What was run, in one sentence (and how much of it there is so far, in another)."""
    per_step, group = run.option("rl", "problems_per_step", "?"), run.option("rl", "group_size", "?")
    objective = OBJECTIVES.get(str(run.option("rl", "objective", "dapo")), "RL")
    rl = f"{run.option('rl', 'steps', '?')} steps of {objective} on {per_step} problems × {group} responses"
    where = f"the task {run.option('task', 'name', '?')} from the model {run.option('model', 'path', '?')}"
    if run.method == "sft":
        what = f"Supervised fine-tuning on {where}"
    elif run.method == "rl":
        what = f"Vanilla RL on {where}: {rl}"
    else:
        turns = run.option("rloop", "iterations", "?")
        start = STARTS.get(str(run.option("rloop", "reinitialise_from")), STARTS["iteration_start"])
        beside = ", with vanilla RL beside it to the same number of rollouts" if run.option("rloop", "vanilla") else ""
        what = (
            f"RLoop on {where}: {turns} iterations of exploration ({rl}) and fine-tuning on its experts, "
            f"each starting from {start}{beside}"
        )
    spent = {line.get("branch"): number(line, "rollouts") or 0 for line in run.stage("explore")}
    # What two arms share was sampled once.
    total = sum(spent.values()) - max((number(line, "rollouts") or 0 for line in run.shared), default=0)
    seconds = sum(s for line in run.lines if (s := number(line, "seconds")))
    amount = f" {total:,.0f} training rollouts" if total else ""
    amount += f"; their steps and the fine-tuning took {duration(seconds)}" if amount and seconds else ""
    seed = f" Seed {run.config['seed']}." if "seed" in run.config else ""
    return f"{what}.{seed}{amount + '.' if amount else ''}"


def _missing(run: Run) -> str:
    if not run.missing:
        return ""
    items = "".join(f"<li>{escape(text)}</li>" for text in run.missing)
    return f'<aside class="missing"><h2>Not here yet</h2><ul>{items}</ul></aside>'


def _section(name: str, title: str, text: str, shown: Mapping[str, tuple[str, str]], figures: Sequence[Figure]) -> str:
    found = {figure["id"]: figure for figure in figures}
    plots = []
    for figure_id, (heading, unit) in shown.items():
        if figure_id in found:
            heading = heading.format(metric=found[figure_id].get("metric", ""))
            plots.append(
                f"<figure><figcaption><b>{escape(heading)}</b> <span>{escape(unit)}</span></figcaption>"
                f'<div class="legend" data-legend="{figure_id}"></div>'
                f'<div class="plot" data-figure="{figure_id}" role="img" aria-label="{escape(heading)}"></div></figure>'
            )
    if not plots:
        return ""
    grid = f"grid-{min(len(plots), 3)}" if len(plots) != 4 else "grid-2"
    return (
        f'<section id="{name}"><h2>{escape(title)}</h2><p>{escape(text)}</p>'
        f'<div class="plots {grid}">{"".join(plots)}</div></section>'
    )


def _experts(run: Run, examples: Sequence[Mapping[str, Any]]) -> str:
    lines = run.stage("select")
    if not lines:
        return ""
    counts = [_selection(line) for line in lines]
    shown = [name for _, name in SELECTION if any(name in row for row in counts)]
    head = [f"<th>{escape(name)}</th>" for name in shown]
    body = []
    for line, row in zip(lines, counts, strict=True):
        cells = "".join(f"<td>{row[name]:,.0f}</td>" if name in row else "<td>–</td>" for name in shown)
        body.append(f'<tr><th scope="row">iteration {int(line.get("iteration") or 0) + 1}</th>{cells}</tr>')
    threshold, cap = run.option("rloop", "hard_threshold", "?"), run.option("rloop", "cap", "?")
    rule = (
        f"Right responses to problems that exploration solved at most {float(threshold):.0%} of the time, exact "
        f"duplicates removed, at most {cap} a problem, drawn evenly over the RL steps."
        if isinstance(threshold, float | int) and threshold < 1
        else f"Right responses, exact duplicates removed, at most {cap} a problem, drawn evenly over the RL steps."
    )
    cards = '<h3>Right responses that passed the filter</h3><div id="experts" class="cards"></div>' if examples else ""
    return (
        f'<section id="selection"><h2>How the experts were chosen</h2><p>{escape(rule)}</p>'
        f"{html_table(head, body, 'counts')}{cards}</section>"
    )


def _selection(line: Mapping[str, Any]) -> dict[str, float]:
    counts = line["counts"] if isinstance(line.get("counts"), Mapping) else line
    found: dict[str, float] = {}
    for keys, name in SELECTION:
        value = next((number(counts, key) for key in keys if number(counts, key) is not None), None)
        if value is not None:
            found[name] = value
    return found


def _browser(rollouts: Mapping[str, Any]) -> str:
    if not rollouts["rollouts"]:
        return ""
    selects = "".join(
        f'<label>{name}<select id="filter-{name}"><option value="">all</option></select></label>'
        for name in ("problem", "step", "verdict", "branch")
    )
    return (
        f'<section id="browser"><h2>Rollouts</h2><p>{len(rollouts["rollouts"]):,} of {rollouts["stored"]:,} stored '
        "rollouts, spread over problems, iterations and verdicts. <code>reasonloop query</code> reads them all.</p>"
        f'<form class="filters">{selects}</form><p id="shown" aria-live="polite"></p>'
        '<div id="rollouts" class="cards"></div><button id="more" type="button" hidden>Show more</button></section>'
    )


def _configuration(run: Run) -> str:
    from reasonloop.config import Recipe

    blocks = []
    for key, table in run.config.items():
        if key in Recipe.model_fields:
            continue
        items = table if isinstance(table, Mapping) else {key: table}
        nested = {name: value for name, value in items.items() if isinstance(value, Mapping)}
        plain = {name: value for name, value in items.items() if name not in nested}
        blocks += [_facts("Machine" if key == "ran_on" else key, plain)]
        blocks += [_facts(name, value) for name, value in nested.items()]
    if run.config_text:
        blocks.append(f"<details><summary>Resolved recipe</summary><pre>{escape(run.config_text)}</pre></details>")
    if not blocks:
        return ""
    return f'<section id="configuration"><h2>Machine, versions and recipe</h2>{"".join(blocks)}</section>'


def _facts(title: str, items: Mapping[str, Any]) -> str:
    rows = "".join(f"<dt>{escape(str(k))}</dt><dd>{escape(str(v))}</dd>" for k, v in items.items())
    return f"<details><summary>{escape(title.capitalize())}</summary><dl>{rows}</dl></details>" if rows else ""


def _asset(name: str) -> str:
    return (files("reasonloop.report") / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """The script's name in a Content-Security-Policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
