"""The table that a run ends with: base, vanilla RL and RLoop per iteration, with intervals, rollouts and seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

Evaluation = Mapping[str, Any]

WIDTH = 100
TABLE_KS = (1, 8, 32)


@dataclass(frozen=True, slots=True)
class Row:
    """One evaluated policy: what a reader calls it, and where it stands in its run."""

    label: str
    arm: str
    """"base" | "sft" | "vanilla" | "early" | "main": the series that it belongs to in the plots"""
    evaluation: Evaluation


def arm_of(evaluation: Evaluation) -> str:
    """The series that an evaluation belongs to: "base", "sft", "vanilla", "early" (vanilla RL's best) or "main"."""
    stage, name = str(evaluation.get("stage", "")), str(evaluation.get("name", ""))
    if stage == "base" or name == "base" or name.startswith("base-"):
        return "base"
    if evaluation.get("branch") in ("vanilla", "early"):
        return str(evaluation["branch"])
    return "sft" if stage == "sft" else "main"


def label_of(evaluation: Evaluation, method: str = "rloop") -> str:
    """What a reader calls the evaluated policy; `method` is the recipe: "rloop", "rlsp", "rl" or "sft"."""
    arm, stage = arm_of(evaluation), evaluation.get("stage")
    if arm == "base":
        return "base"
    if arm == "sft":
        return "SFT"
    if arm == "early":
        return "vanilla, best"
    if arm == "vanilla" or method == "rl":
        return "vanilla RL"
    if method == "rlsp" and stage == "explore":
        return "RLSP"
    turn = int(evaluation.get("iteration") or 0) + 1
    if stage == "explore":
        return f"RLoop {turn}, explored"
    if stage == "rft":
        return f"RLoop {turn}, after RFT"
    return str(evaluation.get("name") or stage or "?")


def split_of(evals: Sequence[Evaluation]) -> str | None:
    """The split that results are reported on: "test" where there is one, else whichever was evaluated last."""
    splits = [e["split"] for e in evals if e.get("split")]
    return "test" if "test" in splits else (splits[-1] if splits else None)


def result_rows(evals: Sequence[Evaluation], method: str = "rloop") -> list[Row]:
    """The table's rows in reading order: base, SFT, vanilla RL (its end), then RLoop by iteration.

    Of several evaluations of the same thing (vanilla RL along its way, say) the one with most rollouts counts. Only one
    split is shown, since numbers of two splits must not stand under one another.
    """
    split = split_of(evals)
    last: dict[str, Row] = {}
    for evaluation in evals:
        if not evaluation.get("metrics") or evaluation.get("split") not in (split, None):
            continue
        row = Row(label_of(evaluation, method), arm_of(evaluation), evaluation)
        held = last.get(row.label)
        if held is None or _progress(evaluation) >= _progress(held.evaluation):
            last[row.label] = row
    order = {"base": 0, "sft": 1, "vanilla": 2, "early": 3, "main": 4}
    stages = {"explore": 0, "rft": 1}

    def place(row: Row) -> tuple[int, int, int, str]:
        e = row.evaluation
        return order[row.arm], int(e.get("iteration") or 0), stages.get(str(e.get("stage")), 2), row.label

    return sorted(last.values(), key=place)


def metric_keys(evals: Sequence[Evaluation]) -> list[tuple[str, str]]:
    """The columns (key, heading) to show: the average, then pass@8 and pass@32 or the highest k that was measured.

    avg@n and pass@1 of the same n samples are one number by definition, so that they share a column.
    """
    averages: set[int] = set()
    ks: set[int] = set()
    for evaluation in evals:
        for key in evaluation.get("metrics", {}):
            name, _, k = key.partition("@")
            if k.isdigit():
                (averages if name == "avg" else ks).add(int(k))
    wanted = [k for k in TABLE_KS if k in ks and k > 1]
    if ks and 1 < max(ks) < TABLE_KS[-1] and max(ks) not in wanted:
        wanted.append(max(ks))
    columns = [(f"pass@{k}", f"pass@{k}") for k in wanted]
    if len(averages) == 1:
        n = averages.pop()
        return [(f"avg@{n}", f"avg@{n} = pass@1" if n > 1 and 1 in ks else f"avg@{n}"), *columns]
    return [("pass@1", "pass@1"), *columns] if 1 in ks else columns


def format_estimate(metric: Mapping[str, Any] | None) -> str:
    """ "0.412 [.382,.441]", or "-" for what was not measured."""
    if metric is None:
        return "-"
    lo, hi = metric["ci95"]
    return f"{metric['value']:.3f} [{_bound(lo)},{_bound(hi)}]"


def results_table(evals: Sequence[Evaluation], method: str = "rloop") -> Table:
    """The result table for a terminal, at most 100 columns wide; it reads the same without colour."""
    from rich import box
    from rich.table import Table

    headings, body = _cells(evals, method)
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
        title=_title(evals),
        title_justify="left",
        title_style="",
    )
    for i, heading in enumerate(headings):
        # On a terminal narrower than the table the estimates wrap between value and interval, and nothing is cut off.
        table.add_column(
            heading, justify="right" if i else "left", no_wrap=heading in ("", "rollouts", "seconds"), overflow="fold"
        )
    rows = result_rows(evals, method)
    for row, cells in zip(rows, body, strict=True):
        table.add_row(*cells, style="bold" if row.evaluation.get("stage") == "rft" else None)
    if not rows:
        table.caption = "no evaluation yet"
    return table


def results_text(evals: Sequence[Evaluation], method: str = "rloop") -> str:
    """The result table as plain text (ASCII, no escape codes), for pipes and logs; at most 100 columns wide."""
    headings, body = _cells(evals, method)
    if not body:
        return "no evaluation yet"
    widths = [max(len(line[i]) for line in [headings, *body]) for i in range(len(headings))]

    def line(cells: Sequence[str]) -> str:
        aligned = [c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
        return "  ".join(aligned).rstrip()

    rule = "-" * len("  ".join("-" * w for w in widths))
    return "\n".join([_title(evals), "", line(headings), rule, *(line(cells) for cells in body)])


def _cells(evals: Sequence[Evaluation], method: str) -> tuple[list[str], list[list[str]]]:
    rows = result_rows(evals, method)
    columns = metric_keys([row.evaluation for row in rows])
    headings = ["", *(heading for _, heading in columns), "rollouts", "seconds"]
    body = []
    for row in rows:
        metrics = row.evaluation["metrics"]
        estimates = [format_estimate(metrics.get(key)) for key, _ in columns]
        body.append([row.label, *estimates, _count(row, "rollouts"), _count(row, "seconds")])
    return headings, body


def _title(evals: Sequence[Evaluation]) -> str:
    rows = result_rows(evals)
    if not rows:
        return "Held-out results"
    e = rows[-1].evaluation
    problems = len(e.get("problems") or ())
    what = " ".join(str(e[k]) for k in ("task", "split") if e.get(k))
    size = f"{problems} problems x {e['samples']} samples, " if problems and e.get("samples") else ""
    return f"Held-out results: {what + ', ' if what else ''}{size}95 % intervals in brackets"


def _progress(evaluation: Evaluation) -> tuple[float, float]:
    return float(evaluation.get("rollouts") or 0), float(evaluation.get("step") or 0)


def _count(row: Row, key: str) -> str:
    value = row.evaluation.get(key)
    if value is None:
        return "-"
    return f"{float(value):,.0f}" if float(value) < 1e6 else f"{float(value) / 1e6:,.1f}M"


def _bound(value: float) -> str:
    """Four characters: ".382", or "1.00"."""
    text = f"{value:.3f}"
    return text[1:] if text.startswith("0.") else text[:4]
