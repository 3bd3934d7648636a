"""What the analyses have found, for the page."""

from __future__ import annotations

from dataclasses import dataclass, field

from reasonloop.report.figures import Figure


@dataclass
class Analyses:
    """Figures, and by section of the page the sentences that go with it."""

    figures: list[Figure] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def note(self, section: str, text: str) -> None:
        self.notes.setdefault(section, []).append(text)
