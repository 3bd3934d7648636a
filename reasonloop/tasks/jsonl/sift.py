"""The problems of a file, the rows that are left out of it, and what is said where bad ones are refused."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field

from reasonloop.errors import InputError
from reasonloop.records import Problem
from reasonloop.tasks.files import Fault, Source, row_name, shown
from reasonloop.tasks.jsonl.layouts import READ, KeyOptions
from reasonloop.tasks.jsonl.rows import NO_ANSWER, folded, prompt_key, read_problem, same_gold
from reasonloop.tasks.report import BadRow, FileReport, counts, listed

OTHER_ANSWER, SAME_ID, HELD_OUT = "same prompt with another answer", "same id for another problem", "held out too"
FAILS = "gold answer that isn't right itself"
_BESIDE_OTHERS = (OTHER_ANSWER, SAME_ID)
"""Kinds of which each row alone is good"""
CURE = 'correct these rows, or leave them out with on_bad = "skip"'


@dataclass
class Sifted:
    """A file that was read."""

    file: str
    split: str
    rows: int = 0
    problems: list[Problem] = field(default_factory=list)
    equal: int = 0
    bad: list[BadRow] = field(default_factory=list)
    readable: int = 0
    text: list[BadRow] = field(default_factory=list)
    suspicious: list[BadRow] = field(default_factory=list)

    @property
    def report(self) -> FileReport:
        golds = self.readable, tuple(self.text), tuple(self.suspicious)
        return FileReport(self.file, self.split, self.rows, len(self.problems), self.equal, tuple(self.bad), *golds)

    def drop(self, rows: dict[str, BadRow]) -> None:
        """Takes problems, by their places, out as bad rows."""
        self.bad += rows.values()
        self.problems = [problem for problem in self.problems if row_name(problem) not in rows]


def sift(source: Source, split: str, keys: KeyOptions) -> Sifted:
    """Reads a source once. Problems are in the order of their rows, the first of equal ones. Raises InputError for a file
    that can't be read or has no rows."""
    sifted = Sifted(source.name, split)
    known: set[tuple[str, str]] = set()
    for raw in source.rows():
        sifted.rows += 1
        try:
            problem = read_problem(raw, source.stem, keys)
            if split != "train" and not problem.answer:
                told = (
                    "no 'answer'; expected one in a held-out problem (only training can do without: jsonl?train=FILE)"
                )
                raise Fault(NO_ANSWER, told)
        except Fault as fault:
            sifted.bad.append(BadRow(raw.place, fault.kind, fault.reason))
            continue
        same = (prompt_key(problem), folded(problem.answer) or f"\n{folded(problem.response)}")
        if same in known:
            sifted.equal += 1
        else:
            known.add(same)
            sifted.problems.append(problem)
    if not sifted.rows:
        raise InputError(f"{source.name}: the file is empty; expected a row for each problem: {READ}")
    _merge_equal(sifted)
    _drop_conflicts(sifted, OTHER_ANSWER, lambda problem: prompt_key(problem) if problem.answer else row_name(problem))
    _drop_conflicts(sifted, SAME_ID, lambda problem: problem.id)
    return sifted


def _merge_equal(sifted: Sifted) -> None:
    """Takes out problems that differ from one before them only in how the same gold answer is written."""
    first: dict[str, Problem] = {}
    kept: list[Problem] = []
    for problem in sifted.problems:
        known = first.setdefault(prompt_key(problem), problem) if problem.answer else problem
        if known is not problem and same_gold(problem.answer, known.answer):
            sifted.equal += 1
        else:
            kept.append(problem)
    sifted.problems = kept


def _drop_conflicts(sifted: Sifted, kind: str, key: Callable[[Problem], Hashable]) -> None:
    """Takes out all problems whose key another one has too."""
    groups: dict[Hashable, list[Problem]] = {}
    for problem in sifted.problems:
        groups.setdefault(key(problem), []).append(problem)
    conflicts: dict[str, BadRow] = {}
    for problem in sifted.problems:
        group = groups[key(problem)]
        if len(group) == 1:
            continue
        other = group[0] if group[0] is not problem else group[1]
        if kind == SAME_ID:
            reason = f"has the id {problem.id!r}, and so has {row_name(other)}, which is another problem"
        else:
            answers = f"{shown(problem.answer)!r} and {shown(other.answer)!r}"
            reason = f"has the same prompt as {row_name(other)} and another answer ({answers})"
        conflicts[row_name(problem)] = BadRow(row_name(problem), kind, reason)
    if conflicts:
        sifted.drop(conflicts)


def refuse_bad(files: Iterable[Sifted]) -> None:
    """Raises InputError if there are bad rows: one line with all of them, or the first and how many."""
    files = [sifted for sifted in files if sifted.bad]
    bad = [row for sifted in files for row in sifted.bad]
    if not bad:
        return
    expected = READ
    if all(row.kind in _BESIDE_OTHERS for row in bad):
        expected = 'one answer for each problem, and an id of its own (id_key = "" takes none)'
    if len(bad) == 1:
        raise InputError(f"{bad[0]}; expected {expected}: {CURE}")
    where = f"{', '.join(sifted.file for sifted in files)}: {len(bad):,} of {sum(s.rows for s in files):,} rows are bad"
    raise InputError(f"{where} ({counts(bad)}): {listed(bad)}; expected {expected}: {CURE}")


def refuse_empty(sifted: Sifted) -> None:
    """Raises InputError if bad rows were left out, and nothing is left."""
    if not sifted.problems:
        raise InputError(
            f"{sifted.file}: none of its {sifted.rows:,} rows is left ({counts(sifted.bad)}): {listed(sifted.bad)}; "
            f"expected {READ}"
        )


def overlap(held_out: Iterable[Problem], sifted: Sifted) -> dict[str, BadRow]:
    """By place, the problems of a file whose prompts are held out as well."""
    seen = {prompt_key(problem): problem for problem in held_out}
    found = ((problem, seen.get(prompt_key(problem))) for problem in sifted.problems)
    return {
        row_name(problem): BadRow(
            row_name(problem), HELD_OUT, f"has the same prompt as {row_name(other)}, which is held out"
        )
        for problem, other in found
        if other is not None
    }


def refuse_overlap(held_out: Iterable[Problem], train: Iterable[Problem]) -> None:
    """Raises InputError if held-out prompts are training prompts too."""
    seen = {prompt_key(problem): problem for problem in train}
    same = [
        f"{row_name(problem)} has the same prompt as {row_name(other)}"
        for problem in held_out
        if (other := seen.get(prompt_key(problem)))
    ]
    if same:
        many = f"{len(same):,} held-out problems are training problems too: " if len(same) > 1 else ""
        raise InputError(
            f"{many}{listed(same)}; expected training and held-out problems to differ: take one of the two out, or "
            'leave them out of training with on_bad = "skip"'
        )
