"""docs/log.md and its pages: every entry is dated, short, decided, and in the index; links lead somewhere."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
INDEX = DOCS / "log.md"
PAGES = sorted((DOCS / "log").glob("*.md"))
LINES, CHARACTERS = 5, 600


def slug(heading: str) -> str:
    """A heading's anchor, as GitHub and MyST make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def entries(page: Path) -> list[tuple[str, str]]:
    """Headings and what stands below them."""
    _, *parts = re.split(r"(?m)^## ", page.read_text(encoding="utf-8"))
    return [(heading, body.strip()) for heading, _, body in (part.partition("\n") for part in parts)]


def written(body: str) -> date:
    """When the text came in; the last day, where it came in over several."""
    found = re.match(r"\*(?:\d{4}-\d\d-\d\d to )?(\d{4}-\d\d-\d\d)\b", body)
    assert found, f"no date in {body[:60]!r}"
    return date.fromisoformat(found[1])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_entries_are_dated_short_and_decided(page: Path) -> None:
    found = entries(page)
    dates = [written(body) for _, body in found]
    assert dates == sorted(dates, reverse=True)  # newest first
    for heading, body in found:
        paragraphs = body.split("\n\n")
        assert paragraphs[-1].startswith("Decided:"), heading
        for paragraph in paragraphs:
            if paragraph.startswith("|"):
                continue
            for item in re.split(r"\n(?=- )", paragraph):
                assert len(item.splitlines()) <= LINES, (heading, item)
                assert len(item) <= CHARACTERS, (heading, item)


def test_the_index_has_every_entry() -> None:
    listed = re.findall(r"(?m)^- (\S+) \[(.*)\]\(log/([\w-]+)\.md#(\S+)\)$", INDEX.read_text(encoding="utf-8"))
    there = [(str(written(b)), h, page.stem, slug(h)) for page in PAGES for h, b in entries(page)]
    assert sorted(listed) == sorted(there)
    assert [row for row in listed if row[2] == "rloop"] == [row for row in there if row[2] == "rloop"]


@pytest.mark.parametrize("page", [INDEX, *PAGES], ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).is_file(), target
