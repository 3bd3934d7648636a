"""Every "mean [low, high]" in README.md and docs/evidence.md is in a committed result file, rounded as it should be."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
NUMBER = r"[-+]?\d+(?:\.\d+)?"
FIGURE = re.compile(
    rf"(?P<mean>{NUMBER})(?P<percent> ?%)?(?:\*\*)? \[(?P<low>{NUMBER})(?: ?%)?, (?P<high>{NUMBER})(?: ?%)?\]"
)

MIDDLES = {"ci95": ("relative", "value", "mean"), "ci95_absolute": ("absolute",)}


def number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def interval(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(number, value))


def mean(value: Any) -> Any:
    return sum(value) / len(value) if isinstance(value, list) and value and all(map(number, value)) else value


def intervals(value: Any) -> Iterator[tuple[float, float, float]]:
    """Means and their intervals: side by side in an object, or under the same key of `ci95` beside it."""
    if isinstance(value, list):
        for one in value:
            yield from intervals(one)
    if not isinstance(value, dict):
        return
    for key, one in value.items():
        yield from intervals(one)
        if interval(one):
            yield from ((value[name], *one) for name in MIDDLES.get(key, ()) if number(value.get(name)))
        if isinstance(one, dict):
            yield from beside(value, one)


def beside(values: dict[str, Any], bounds: dict[str, Any]) -> Iterator[tuple[float, float, float]]:
    for key, bound in bounds.items():
        middle = mean(values.get(key))
        if interval(bound) and number(middle):
            yield (middle, *bound)
        if isinstance(bound, dict) and isinstance(middle, dict):
            yield from beside(middle, bound)


@cache
def results(folder: str) -> frozenset[tuple[float, float, float]]:
    found = {one for file in sorted((ROOT / folder).rglob("*.json")) for one in intervals(json.loads(file.read_text()))}
    return frozenset(found | {(-middle, -high, -low) for middle, low, high in found})


def rounds_to(value: float, text: str) -> bool:
    digits = len(text.partition(".")[2])
    return abs(value - float(text)) <= 0.5 * 10**-digits + 1e-9


def sections(file: Path) -> Iterator[tuple[str, list[str]]]:
    """The parts of a file between headings, and the result folders that each names; all of them where it names none."""
    for part in re.split(r"(?m)^(?=##+ )", file.read_text()):
        named = sorted({name for name in re.findall(r"evidence/[\w-]+", part) if (ROOT / name).is_dir()})
        yield part, named if file.name == "evidence.md" and named else ["evidence"]


@pytest.mark.parametrize("name", ["README.md", "docs/evidence.md"])
def test_intervals_are_those_of_the_result_files(name: str) -> None:
    wrong, seen = [], 0
    for part, folders in sections(ROOT / name):
        known = [one for folder in folders for one in results(folder)]
        for figure in FIGURE.finditer(part):
            seen += 1
            scale = 100.0 if figure["percent"] else 1.0
            texts = (figure["mean"], figure["low"], figure["high"])
            if not any(all(rounds_to(scale * v, text) for v, text in zip(one, texts, strict=True)) for one in known):
                wrong.append(f"{figure[0]} ({', '.join(folders)})")
    assert not wrong
    assert seen > 25


def test_speed_is_made_from_the_result_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    importlib.import_module("tables").main()
    assert capsys.readouterr().out == (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")  # else: make docs
