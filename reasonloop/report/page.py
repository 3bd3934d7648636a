"""Puts the report together: one HTML file that works from disk, with no network, in light and dark."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

from reasonloop.analysis.diagnosis import diagnose
from reasonloop.config import Recipe, flat
from reasonloop.errors import InputError
from reasonloop.report.analyses import analyse
from reasonloop.report.figures import all_figures
from reasonloop.report.findings import findings_section, nothing_learned, shown_verdict, with_code
from reasonloop.report.headline import headline
from reasonloop.report.results import duration, heading_cell, html_table, results_section
from reasonloop.report.run import RunData, number, read_run, trunk
from reasonloop.report.sample import browse
from reasonloop.report.sections import SECTIONS, contents, plots_section
from reasonloop.report.shell import document, write_page

SOURCES = {
    "all_steps": "drawn evenly over the RL steps",
    "last_step": "all from the last RL step",
    "base_policy": "sampled from the policy that started the iteration, without RL",
}

HEALTHY = (
    "The diagnosis (right answers, losses on the way, cut-off responses, equal groups, entropy, experts, verifier, "
    "gradient) found nothing amiss."
)

# Keys of a "select" line in the order in which the selection narrows, with what a reader calls them.
SELECTION = {
    "seen": "rollouts",
    "right": "right",
    "problems": "problems",
    "hard_problems": "hard problems",
    "deduplicated": "distinct right on hard",
    "selected": "experts",
    "solved": "solved greedily before",
    "trained_on": "trained on",
}


def write_report(run_folder: Path, out: Path | None = None, version: str = "") -> Path:
    """Write the report of the run in `run_folder` to `out` (default: RUN/report.html) and return its path.

    With a `version` the page reads itself again every few seconds; less often while it finds the same version.

    Works at any time: pieces that a run doesn't have yet are named in the report. The file is replaced at once, so that
    a reader never sees half of it. InputError if `run_folder` is no run folder.
    """
    return write_page(render(read_run(run_folder), version), out if out is not None else run_folder / "report.html")


def render(run: RunData, version: str = "") -> str:
    """The whole page as a string."""
    findings = diagnose(run.evidence())
    found = analyse(run)
    if not findings and run.rl_steps():
        found.note("stability", HEALTHY)
    figures = [*all_figures(run), *found.figures]
    rollouts = browse(run, shown_verdict(run, findings))
    names = run.branch_names()
    sections = [
        findings_section(findings, bool(rollouts["samples"])),
        results_section(run),
        *(plots_section(*section, figures, found.notes) for section in SECTIONS),
        _experts(run, rollouts["experts"]),
        _browser(rollouts),
        _configuration(run),
    ]
    titles = [finding.title for finding in findings]
    told = [f"{titles[0]}."] if nothing_learned(findings) else headline(run)
    if titles and not nothing_learned(findings):
        told.append(f"Diagnosis: {'; '.join(titles).lower()}.")
    body = "\n".join([_header(run, told, bool(version)), _missing(run), contents(sections), *sections])
    return document(_title(run), body, {"figures": figures, "names": names, "version": version, **rollouts})


def _title(run: RunData) -> str:
    return f"{run.title} on {run.option('task', 'name', 'a task')}"


def _header(run: RunData, told: Sequence[str], followed: bool) -> str:
    following = f'<p role="status">{escape(_whereabouts(run))}</p>' if followed else ""
    first, rest = told[:1], told[1:]
    head = "".join(f'<p class="headline">{with_code(text)}</p>' for text in first)
    head += f'<p class="sure">{with_code(" ".join(rest))}</p>' if rest else ""
    lead = f'<p class="lead">{escape(sentence(run))}</p>'
    return f"<header>\n<h1>{escape(_title(run))}</h1>\n{following}{head}{lead}\n</header>"


def _whereabouts(run: RunData) -> str:
    """Where a run that is followed is, and how long it will take yet."""
    known = run.progress
    where = str(known.get("stage") or "")
    if where and known.get("steps"):
        turn = f" {int(known['iteration']) + 1}" if known.get("iteration") is not None else ""
        where = f": {where}{turn}, step {known.get('step')}/{known['steps']}"
    left = number(known, "seconds_left")
    about = f"; about {duration(left)} left at {time.strftime('%H:%M')}" if left is not None else ""
    return f"The run goes on{where}{about}. This page keeps up with it."


def sentence(run: RunData) -> str:
    """What was run, in one sentence (and how much of it there is so far, in another)."""
    what = (
        f"{run.title} on the task {run.option('task', 'name', '?')} from the model {run.option('model', 'path', '?')}"
    )
    if run.imported:
        what = f"{run.title} on the task {run.option('task', 'name', '?')}, imported and judged again"
    told = run.method.sentence if run.method else None
    with suppress(InputError, KeyError):  # another version's recipe
        what = told(flat(run.recipe().model_dump(mode="json"))) if told else what
    seconds = sum(s for line in run.lines if (s := number(line, "seconds")))
    amount = _rollouts_spent(run)
    amount += f"; their steps and the fine-tuning took {duration(seconds)}" if amount and seconds else ""
    seed = f" Seed {run.config['seed']}." if "seed" in run.config and not run.imported else ""
    return f"{what}.{seed}{amount + '.' if amount else ''}"


def _rollouts_spent(run: RunData) -> str:
    """Training rollouts in all, and of each arm where two share some, which were sampled once."""
    # of explorations side by side the line behind them has the count, whatever order they ended in
    counted = [line for line in run.lines if line.get("stage") in ("explore", "branches")]
    spent = {trunk(line): number(line, "rollouts") or 0 for line in counted}
    common = [number(line, "rollouts") or 0 for line in run.stage("explore") if line.get("shared_with")]
    shared = max(common, default=0) if len(spent) > 1 else 0
    total = sum(spent.values()) - shared
    arms = run.branches()
    each = " and ".join(f"{run.name(arms[branch])} {count:,.0f}" for branch, count in spent.items())
    split = f" ({each}; the first {shared:,.0f} are the same ones, counted once)" if shared else ""
    if common and not shared:  # all of them
        split = f" (the same ones for {' and '.join(map(run.name, run.rl_steps()))})"
    return f" {total:,.0f} training rollouts{split}" if total else ""


def _missing(run: RunData) -> str:
    if not run.missing:
        return ""
    items = "".join(f"<li>{escape(text)}</li>" for text in run.missing)
    title = "Could not be shown" if run.done else "Not here yet"
    return f'<aside class="missing"><h2>{title}</h2><ul>{items}</ul></aside>'


def _experts(run: RunData, examples: Sequence[Mapping[str, Any]]) -> str:
    lines = run.stage("select")
    if not lines:
        return ""
    shown = [key for key in SELECTION if any(number(line, key) is not None for line in lines)]
    head = [heading_cell(SELECTION[key]) for key in shown]
    body = []
    for line in lines:
        counts = {SELECTION[key]: number(line, key) for key in shown}
        cells = "".join(
            f'<td data-name="{name}">{"–" if count is None else f"{count:,.0f}"}</td>' for name, count in counts.items()
        )
        body.append(f'<tr><th scope="row">iteration {line["iteration"] + 1}</th>{cells}</tr>')
    threshold, cap = run.option("rloop", "hard_threshold", "?"), run.option("rloop", "cap", "?")
    source = SOURCES.get(str(run.option("rloop", "experts")), SOURCES["all_steps"])
    hard = (
        f" to problems that exploration solved at most {float(threshold):.0%} of the time"
        if isinstance(threshold, float | int) and threshold < 1
        else ""
    )
    rule = f"Right responses{hard}, exact duplicates removed, at most {cap} a problem, {source}."
    cards = '<h3>Some of them</h3><div id="experts" class="cards"></div>' if examples else ""
    return (
        f'<section id="selection"><h2>How the experts were chosen</h2><p>{escape(rule)}</p>'
        f"{html_table(head, body, 'counts')}{cards}</section>"
    )


def _browser(rollouts: Mapping[str, Any]) -> str:
    if not rollouts["rollouts"]:
        return ""
    selects = "".join(
        f'<label>{name}<select id="filter-{name}"><option value="">all</option></select></label>'
        for name in ("problem", "step", "verdict", "branch")
    )
    unknown = sum("gold" not in rollout for rollout in rollouts["rollouts"])
    which = "any" if unknown == len(rollouts["rollouts"]) else f"{unknown:,}"
    gold = f" The task, as it is here and now, has no gold answer for {which} of them." if unknown else ""
    return (
        f'<section id="browser"><h2>Rollouts</h2><p>{len(rollouts["rollouts"]):,} of {rollouts["stored"]:,} stored '
        "rollouts, spread over problems, iterations and verdicts. <code>reasonloop query</code> reads them all; its columns "
        f"count iterations and steps from 0, this page from 1.{escape(gold)}</p>"
        f'<form class="filters">{selects}</form><p id="shown" aria-live="polite"></p>'
        '<div id="rollouts" class="cards"></div><button id="more" type="button" hidden>Show more</button></section>'
    )


def _configuration(run: RunData) -> str:
    blocks = []
    for key, table in run.config.items():
        if key in Recipe.model_fields:
            continue
        items = table if isinstance(table, Mapping) else {key: table}
        nested = {name: value for name, value in items.items() if isinstance(value, Mapping)}
        plain = {name: value for name, value in items.items() if name not in nested}
        blocks += [facts("Machine" if key == "ran_on" else key, plain)]
        blocks += [facts(name, value) for name, value in nested.items()]
    if run.config_text:
        blocks.append(f"<details><summary>Resolved recipe</summary><pre>{escape(run.config_text)}</pre></details>")
    if not blocks:
        return ""
    return f'<section id="configuration"><h2>Machine, versions and recipe</h2>{"".join(blocks)}</section>'


def facts(title: str, items: Mapping[str, Any], *, capital: bool = True) -> str:
    """A folded list of names and values."""
    rows = "".join(f"<dt>{escape(str(k))}</dt><dd>{escape(str(v))}</dd>" for k, v in items.items())
    return (
        f"<details><summary>{escape(title.capitalize() if capital else title)}</summary><dl>{rows}</dl></details>"
        if rows
        else ""
    )
