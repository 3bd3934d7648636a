"""The table that a run ends with: its arms' policies, with intervals, rollouts and seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

Record = Mapping[str, Any]
"""An evaluation file, or a line of metrics.jsonl"""

WIDTH = 100
TABLE_KS = (1, 8, 32)

ORDER = {"base": 0, "sft": 1, "vanilla": 2, "early": 3, "main": 4, "explored": 4}
"""The arms, as tables and plots have them; the last two take turns"""

STARTS = ("base", "sft")
"""The arms whose policies RL starts from"""

PASSED = ("early", "explored")
"""The arms of policies that another arm's training passes through: nothing goes on from them"""


def trunk_of(arm: str) -> str:
    """The arm that an average is of ("main x 0.5", "main averaged"); any other is its own."""
    return arm.partition(" ")[0]


def weighed(arm: str) -> bool:
    """Whether it is one of several averages of another arm's policy, that stand beside it in tables."""
    return " x " in arm


def weight_of(arm: str) -> float | None:
    """The weight of such an average; None of any other arm."""
    try:
        return float(arm.partition(" x ")[2])
    except ValueError:
        return None


def arm_of(record: Record) -> str:
    """The arm that an evaluation or a line of metrics.jsonl belongs to, as it was written down. What was written before
    arms were told by its branch."""
    if record.get("arm"):
        return str(record["arm"])
    stage, branch = str(record.get("stage") or ""), str(record.get("branch") or "main")
    return stage if stage in STARTS else branch


def arms_of(record: Record) -> tuple[str, ...]:
    """The same; of steps that were done once for two arms, both."""
    shared = record.get("shared_with")
    return (arm_of(record), *([str(shared)] if shared else []))


def label_of(evaluation: Record) -> str:
    """What a reader calls the evaluated policy."""
    return str(evaluation.get("label") or evaluation.get("name") or evaluation.get("stage") or "?")


def split_of(evals: Sequence[Record]) -> str | None:
    """The split that results are reported on: "test" where there is one, else whichever was evaluated last."""
    splits = [e["split"] for e in evals if e.get("split")]
    return "test" if "test" in splits else (splits[-1] if splits else None)


def reported(evals: Sequence[Record]) -> list[Record]:
    """Those on the split that results are reported on: numbers of two splits must not stand under one another."""
    split = split_of(evals)
    return [e for e in evals if e.get("metrics") and e.get("split") in (split, None)]


def result_rows(evals: Sequence[Record]) -> list[Record]:
    """The evaluations that are the table's rows, in reading order: by arm, then by iteration.

    Of several evaluations of the same thing (an arm along its way, say) the one with most rollouts counts.
    """
    last: dict[str, Record] = {}
    for evaluation in sorted(reported(evals), key=_progress):
        last[label_of(evaluation)] = evaluation
    stages = {"explore": 0, "rft": 1}

    def place(e: Record) -> tuple[int, int, int, str]:
        kind, iteration = ORDER.get(trunk_of(arm_of(e)), 5), int(e.get("iteration") or 0)
        return kind, iteration, stages.get(str(e.get("stage")), 2), label_of(e)

    return sorted(last.values(), key=place)


def metric_keys(evals: Sequence[Record], votes: bool = False) -> list[tuple[str, str]]:
    """The columns (key, heading) to show: the average, then pass@8 and pass@32 or the highest k that was measured, with
    `votes` the majority vote of all samples, then the mean score, where verifiers give one.

    avg@n and pass@1 of the same n samples are one number by definition, so that they share a column.
    """
    averages: set[int] = set()
    ks: set[int] = set()
    for evaluation in evals:
        for key in evaluation.get("metrics", {}):
            name, _, k = key.partition("@")
            if k.isdigit() and name in ("avg", "pass"):
                (averages if name == "avg" else ks).add(int(k))
    wanted = [k for k in TABLE_KS if k in ks and k > 1]
    if ks and 1 < max(ks) < TABLE_KS[-1] and max(ks) not in wanted:
        wanted.append(max(ks))
    columns = [(f"pass@{k}", f"pass@{k}") for k in wanted]
    majority = dict.fromkeys(key for e in evals for key in e.get("metrics", {}) if key.startswith("maj@"))
    columns += [(key, key) for key in majority] if votes else []
    columns += [("score", "score")] if any("score" in e.get("metrics", {}) for e in evals) else []
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


def results_table(evals: Sequence[Record]) -> RenderableType:
    """The result table for a terminal, at most 100 columns wide; it is ASCII and reads the same without colour."""
    from rich.console import Group
    from rich.text import Text

    rows = result_rows(evals)
    if not rows:
        return Text("no evaluation yet")
    trained = ("rollouts", "seconds") if any(_count(row, "rollouts") != "-" for row in rows) else ()
    columns = metric_keys(rows, votes=not trained)  # beside rollouts and seconds it would not fit
    table = plain_table()
    # On a terminal narrower than the table the estimates wrap between value and interval, and nothing is cut off. So does
    # a label that would leave them no room (a model's path, say).
    short = max(len(label_of(row)) for row in rows) < WIDTH // 3
    table.add_column(no_wrap=short, overflow="fold")
    for heading in (*(heading for _, heading in columns), *trained):
        table.add_column(heading, justify="right", no_wrap=heading in trained, overflow="fold")
    for row in rows:
        estimates = [format_estimate(row["metrics"].get(key)) for key, _ in columns]
        cells = [label_of(row), *estimates, *(_count(row, key) for key in trained)]
        table.add_row(*map(Text, cells), style="bold" if row.get("product") else None)
    return Group(Text(f"{_title(rows[-1])}\n"), table)


def plain_table(**options: Any) -> Table:
    """A table without rows: ASCII, a rule below the headings and no other lines. `options`: rich's."""
    from rich.box import Box
    from rich.table import Table

    rule = Box("    \n    \n -- \n" + 5 * "    \n", ascii=True)
    return Table(box=rule, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), **options)


def results_text(evals: Sequence[Record]) -> str:
    """The result table as plain text (ASCII, no escape codes), for pipes and logs; at most 100 columns wide."""
    from rich.console import Console

    out = StringIO()
    Console(file=out, width=WIDTH, color_system=None).print(results_table(evals))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _title(e: Record) -> str:
    problems = len(e.get("problems") or ())
    what = " ".join(str(e[k]) for k in ("task", "split") if e.get(k))
    size = f"{problems} problems x {e['samples']} samples, " if problems and e.get("samples") else ""
    return f"Held-out results: {what + ', ' if what else ''}{size}95 % intervals in brackets"


def _progress(evaluation: Record) -> tuple[float, float]:
    return float(evaluation.get("rollouts") or 0), float(evaluation.get("step") or 0)


def _count(row: Record, key: str) -> str:
    value = row.get(key)
    if value is None:
        return "-"
    return f"{float(value):,.0f}" if float(value) < 1e6 else f"{float(value) / 1e6:,.1f}M"


def _bound(value: float) -> str:
    """Four characters: ".382", or "1.00"."""
    text = f"{value:.3f}"
    return text[1:] if text.startswith("0.") else text[:4]
