"""Puts the report together: one HTML file that works from disk, with no network, in light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from reasonloop.report.analyses import analyse
from reasonloop.report.figures import all_figures
from reasonloop.report.results import duration, html_table, results_section
from reasonloop.report.run import METHODS, Run, number, read_run
from reasonloop.report.sample import browse
from reasonloop.report.sections import SECTIONS, plots_section
from reasonloop.report.shell import document, write_page

OBJECTIVES = {
    "dapo": "DAPO",
    "grpo": "GRPO",
    "dr_grpo": "Dr. GRPO",
    "rloo": "RLOO",
    "gspo": "GSPO",
    "cispo": "CISPO",
    "ppo": "PPO",
}
STARTS = {"iteration_start": "the policy that started the iteration", "base": "the base", "explored": "the RL policy"}
SOURCES = {
    "all_steps": "drawn evenly over the RL steps",
    "last_step": "all from the last RL step",
    "base_policy": "sampled from the policy that started the iteration, without RL",
}

# Keys of a "select" line in the order in which the selection narrows, with what a reader calls them.
SELECTION = [
    (("seen",), "rollouts"),
    (("right",), "right"),
    (("problems",), "problems"),
    (("hard_problems", "hard"), "hard problems"),
    (("deduplicated", "dedup"), "distinct right on hard"),
    (("selected", "cap", "experts"), "experts"),
    (("solved",), "solved greedily before"),
    (("trained_on",), "trained on"),
]


def write_report(run_folder: Path, out: Path | None = None) -> Path:
    """Write the report of the run in `run_folder` to `out` (default: RUN/report.html) and return its path.

    Works at any time: pieces that a run doesn't have yet are named in the report. The file is replaced at once, so that
    a reader never sees half of it. InputError if `run_folder` is no run folder.
    """
    return write_page(render(read_run(run_folder)), out if out is not None else run_folder / "report.html")


def render(run: Run, *, version: str = "") -> str:
    """The whole page as a string; with a `version`, as `report --follow` serves it."""
    found = analyse(run)
    figures = [*all_figures(run), *found.figures]
    rollouts = browse(run)
    names = {"main": run.name("main"), "vanilla": "vanilla RL"}
    body = "\n".join(
        [
            _header(run, version),
            _missing(run),
            results_section(run),
            *(plots_section(*section, figures, found.notes, run.name("main")) for section in SECTIONS),
            _experts(run, rollouts["experts"]),
            _browser(rollouts),
            _configuration(run),
        ]
    )
    return document(_title(run), body, {"figures": figures, "names": names, **rollouts}, live=bool(version))


def _title(run: Run) -> str:
    return f"{METHODS.get(run.method, run.method)} on {run.option('task', 'name', 'a task')}"


def _header(run: Run, version: str) -> str:
    following = f'<p id="following" data-version="{escape(version)}" role="status"></p>' if version else ""
    lead = f'<p class="lead">{escape(sentence(run))}</p>'
    return f"<header>\n<h1>{escape(_title(run))}</h1>\n{lead}{following}\n</header>"


def sentence(run: Run) -> str:
    """What was run, in one sentence (and how much of it there is so far, in another)."""
    per_step, group = run.option("rl", "problems_per_step", "?"), run.option("rl", "group_size", "?")
    objective = OBJECTIVES.get(str(run.option("rl", "objective", "dapo")), "RL")
    steps, each = run.option("rl", "steps", "?"), f"{per_step} problems × {group} responses"
    rl = f"{steps} steps of {objective} on {each}"
    where = f"the task {run.option('task', 'name', '?')} from the model {run.option('model', 'path', '?')}"
    if run.method == "sft":
        what = f"Supervised fine-tuning on {where}"
    elif run.method == "rl":
        what = f"Vanilla RL on {where}: {rl}"
    elif run.method == "rlsp":
        form, first = run.option("exploration", "form", "none"), run.option("sft", "before", True)
        paid = "" if form == "none" else f", with a reward for exploration ({form}) beside the outcome"
        beside = "; vanilla RL beside it, on the outcome alone" if run.option("rlsp", "vanilla") else ""
        what = f"RLSP on {where}: {'supervised fine-tuning, then ' if first else ''}{rl}{paid}{beside}"
    else:
        turns = run.option("rloop", "iterations", "?")
        start = STARTS.get(str(run.option("rloop", "reinitialise_from")), STARTS["iteration_start"])
        beside = ", with vanilla RL beside it to the same number of rollouts" if run.option("rloop", "vanilla") else ""
        if run.option("rloop", "experts") == "base_policy":
            rl = f"sampling the starting policy, without RL: {steps} steps of {each}"
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
