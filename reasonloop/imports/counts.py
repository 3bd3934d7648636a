"""What becomes of the records that an import reads, counted and named."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from reasonloop.text import visible

NAMED = 3


@dataclass
class Counts:
    """What became of all records."""

    read: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    """By what they are: records that are no rollouts, and rollouts that are left out"""
    files: Counter[str] = field(default_factory=Counter)
    """By what they are: files that were not read"""
    noted: Counter[str] = field(default_factory=Counter)
    """What a reader should know of rollouts that were taken"""
    first: dict[str, list[str]] = field(default_factory=dict)
    """Where the first few of each are"""

    def skip(self, why: str, where: str) -> None:
        self.skipped[why] += 1
        self._name(why, where)

    def pass_over(self, why: str, file: str) -> None:
        self.files[why] += 1
        self._name(why, file)

    def note(self, what: str, where: str) -> None:
        self.noted[what] += 1
        self._name(what, where)

    def _name(self, what: str, where: str) -> None:
        named = self.first.setdefault(what, [])
        if len(named) < NAMED:
            named.append(visible(where))

    def lines(self, files: bool = True) -> list[str]:
        """For a reader, the most frequent first; `files`: also those that were not read."""
        found = []
        for title, counts in (
            ("not read", self.files if files else {}),
            ("left out", self.skipped),
            ("noted", self.noted),
        ):
            for what, count in Counter(counts).most_common():
                more = ", ..." if count > len(self.first[what]) else ""
                found.append(f"{title}, {what}: {count:,} ({', '.join(self.first[what])}{more})")
        return found
