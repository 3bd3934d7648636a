"""What was read of problem files, and what was left out: the one place where it is put into words."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

NAMED = 20
"""Bad rows that are named; the others are counted"""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that can't be a problem, or not beside the others."""

    place: str
    """`train.jsonl line 17`"""
    kind: str
    """What is counted"""
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


@dataclass(frozen=True, slots=True)
class FileReport:
    """What came of a file's rows: each is a problem, equal to one before it, or bad."""

    file: str
    split: str
    """The option that named it: train, probe or test"""
    rows: int
    problems: int
    """Before any are dealt to other splits or sampled"""
    equal: int
    """Rows with the prompt and the gold answer of a row before them, white space folded: left out"""
    bad: tuple[BadRow, ...]
    """Left out, where they aren't refused: first those that are bad alone, then those that are bad beside others"""
    readable: int = 0
    """Gold answers that are compared by value"""
    text: tuple[BadRow, ...] = ()
    """Gold answers that only the same words are equal to"""
    suspicious: tuple[BadRow, ...] = ()
    """Gold answers that are probably none: a placeholder, a whole solution. Kept, where they aren't left out as bad rows"""


def report_lines(task: object) -> list[str]:
    """Lines for a reader: what was read of the task's files; none for a task without files."""
    reports: Sequence[FileReport] = getattr(task, "reports", tuple)()
    lines = []
    for report in reports:
        read = f"{_counted(report.problems, 'problem')} of {_counted(report.rows, 'row')}"
        alone = len(reports) == 1 and report.split == "test"  # where a file given by itself goes, whatever it is for
        told = [f"{report.file}: {read}" if alone else f"{report.file} ({report.split}): {read}"]
        told += [f"{_counted(report.equal, 'equal row')} left out"] if report.equal else []
        told += [f"{_counted(len(report.bad), 'bad row')} left out ({counts(report.bad)})"] if report.bad else []
        lines.append("; ".join([*told, *_golds(report)]))
        for rows in (report.bad, report.suspicious):
            told, more = _by_reason(rows)
            lines += [f"  {row}" for row in told]
            lines += [f"  and {more:,} more"] if more else []
        if report.text:
            lines.append(f"  text only: {listed(report.text)}")
    return lines


def _golds(report: FileReport) -> list[str]:
    """What could be read of the gold answers, where it isn't all of them."""
    if not report.text and not report.suspicious:
        return []
    counted = [
        f"{report.readable:,} readable",
        f"{len(report.text):,} text only",
        f"{len(report.suspicious):,} suspicious",
    ]
    cure = ' (those that nothing is equal to are left out with on_bad = "skip")' if report.suspicious else ""
    return [f"gold answers: {', '.join(counted)}{cure}"]


def tell(task: object) -> None:
    """Says it on stderr: beside a command's own output, once nothing is left to be refused."""
    for line in report_lines(task):
        print(line, file=sys.stderr)


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def counts(rows: Iterable[BadRow]) -> str:
    """`30 no answer, 4 not JSON`"""
    return ", ".join(f"{n:,} {kind}" for kind, n in Counter(row.kind for row in rows).most_common())


def listed(rows: Sequence[object]) -> str:
    """The first rows in full, those with one reason as one, and how many there are beside them, in one line."""
    told, more = _by_reason(rows)
    return "; ".join(told) + (f"; and {more:,} more" if more else "")


def _by_reason(rows: Sequence[object]) -> tuple[list[str], int]:
    """Texts of the first rows, those of a file that are bad in the same words as one; how many others there are."""
    groups: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        file, _, line = row.place.rpartition(" ") if isinstance(row, BadRow) else ("", "", "")
        groups.setdefault((file, row.reason) if isinstance(row, BadRow) else ("", str(row)), []).append(line)
    told = []
    for (file, reason), lines in islice(groups.items(), NAMED):
        more = f" and {len(lines) - NAMED:,} more" if len(lines) > NAMED else ""
        place = f"{file} {', '.join(lines[:NAMED])}{more}".strip()
        told.append(f"{place}: {reason}" if place else reason)
    return told, sum(len(lines) for lines in islice(groups.values(), NAMED, None))
