"""The pages hold together: links and anchors lead somewhere, generated ones are fresh, and the first page stays short."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *DOCS.rglob("*.md")], key=str)
PAGES = [page for page in PAGES if "_build" not in page.parts]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
IMAGE = re.compile(r'<img [^>]*src="([^"]+)"')
ELSEWHERE = ("http://", "https://", "mailto:")


def without_code(text: str) -> str:
    text = re.sub(r"(?ms)^(```+|~~~+).*?^\1\s*$", "", text)
    return re.sub(r"`[^`\n]*`", lambda found: "x" * len(found[0]), text)


def anchors(page: Path) -> set[str]:
    """What GitHub, and the site, call a page's headings."""
    found: dict[str, int] = {}
    text = re.sub(r"(?ms)^(```+).*?^\1\s*$", "", page.read_text(encoding="utf-8"))
    for heading in re.findall(r"(?m)^#{1,6} +(.*?)\s*#*$", text):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
        if found[slug]:
            found[f"{slug}-{found[slug]}"] = 0
    return {*found}


def links(page: Path) -> Iterator[str]:
    text = without_code(page.read_text(encoding="utf-8"))
    yield from LINK.findall(text)
    yield from IMAGE.findall(text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    wrong = []
    for target in links(page):
        if target.startswith(ELSEWHERE):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if file == DOCS / "notebook.ipynb":  # copied there when the site is built
            file = ROOT / "examples" / "reasonloop.ipynb"
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            wrong.append(target)
    assert wrong == []


def test_every_page_is_on_the_site() -> None:
    """Reached from the site's first page: by its contents, or by a link."""
    reached, todo = {DOCS / "index.md"}, [DOCS / "index.md"]
    while todo:
        page = todo.pop()
        contents = re.findall(r"(?ms)^```\{toctree\}$(.*?)^```$", page.read_text(encoding="utf-8"))
        names = [f"{name}.md" for tree in contents for name in re.findall(r"<(.+)>", tree)]
        found = {(page.parent / name.partition("#")[0]).resolve() for name in [*names, *links(page)]} & {*PAGES}
        todo += sorted(found - reached)
        reached |= found
    assert {page for page in PAGES if page.is_relative_to(DOCS)} <= reached


@pytest.mark.parametrize(("script", "page"), [("make_cli", "cli.md")])
def test_generated_pages_are_fresh(script: str, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(DOCS), *sys.path])
    assert (DOCS / page).read_text(encoding="utf-8") == importlib.import_module(script).page(), "run `make docs`"


def test_badges_say_what_the_project_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(DOCS), *sys.path])
    for name, svg in importlib.import_module("make_badges").badges().items():
        assert (DOCS / "images" / name).read_text(encoding="utf-8") == svg, "run `make docs`"


def test_the_first_page_shows_what_was_sampled() -> None:
    """Problem, response, verdict and how often it is right, as `evidence/quickstart/example.py` wrote them."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = json.loads((ROOT / "evidence" / "quickstart" / "example.json").read_text(encoding="utf-8"))
    for policy in ("base", "product"):
        shown = found["gained"][policy]
        assert re.search(rf"{re.escape(shown['text'])}\n.*{shown['verdicts']['right']} of 32 tries are right", text)
    counts, lost = found["problems"], found["lost"]
    assert f"Of {sum(counts.values())} held-out ones {counts['gained']} did, {counts['lost']} lost." in text
    assert f"was right in {lost['base']['verdicts']['right']} of 32 tries before, and in none after" in text
    assert lost["product"]["verdicts"].get("right", 0) == 0


def test_the_first_page_s_script_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (script,) = re.findall(r"(?ms)^```python\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"))
    exec(script.replace("batch(0, 32)", "batch(0, 8)"), {})
    assert "'reward'" in capsys.readouterr().out


def test_the_first_page_stays_readable() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    head = text[: text.index("## Before and after")]
    assert "make quickstart" in head
    assert (
        len(re.sub(r"<.*?>|!\[.*?\)", "", head).split()) < 250
    )  # the first screen: what it is, one picture, what to type, what it needs
    prose = without_code(text)
    assert re.findall(r"\([^()]*\([^()]*\)", LINK.sub("", prose)) == []  # brackets in brackets
    cells = [cell for line in prose.splitlines() if line.startswith("|") for cell in line.strip("|").split("|")]
    assert [cell for cell in cells if len(LINK.sub("x", cell).split()) > 12] == []
    sentences = re.split(r"(?<=[.!?:])\s+|\n\n|\n(?=[-|#])", re.sub(r"(?m)^\|.*$", "", prose))
    assert [one for one in sentences if len(one.split()) > 40] == []
