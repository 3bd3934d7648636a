"""The figures drawn by hand: small, legible in light and dark, described for those who don't see them."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CONCEPTS = ("loop", "rollout", "metrics", "rlsp", "run")
SVG = "{http://www.w3.org/2000/svg}"


def figure(name: str) -> str:
    return (ROOT / "docs" / "images" / f"{name}.svg").read_text(encoding="utf-8")


def texts(name: str) -> list[str]:
    return ["".join(element.itertext()) for element in ET.fromstring(figure(name)).iter(f"{SVG}text")]


@pytest.mark.parametrize("name", CONCEPTS)
def test_a_figure_stands_alone(name: str) -> None:
    source = figure(name)
    root = ET.fromstring(source)
    assert len(source.encode()) < 12_000
    for described in root.attrib["aria-labelledby"].split():
        (element,) = root.iterfind(f".//*[@id='{described}']")
        assert element.text
    assert "@media (prefers-color-scheme:dark)" in source
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|@font-face|<script|url\(", source)
    width = float(root.attrib["viewBox"].split()[2])
    sizes = [float(size) for size in re.findall(r"font-size:([\d.]+)px", source)]
    assert min(sizes) * 400 / width >= 9  # pixels, where the figure is 400 wide


def test_the_rollout_is_the_committed_one() -> None:
    rollout = json.loads((ROOT / "evidence" / "quickstart" / "example.json").read_text())["rollout"]
    shown = texts("rollout")
    assert rollout["prompt"] in shown
    start = shown.index(rollout["tokens"][0])
    cells = shown[start : start + 2 * len(rollout["tokens"])]
    assert cells[::2] == [token or "end" for token in rollout["tokens"]]
    assert [float(cell.replace("−", "-")) for cell in cells[1::2]] == [round(v, 1) for v in rollout["logprobs"]]
    assert {rollout["verdict"], str(rollout["reward"])} <= set(shown)


def test_the_metrics_are_those_of_the_grids() -> None:
    root = ET.fromstring(figure("metrics"))
    marks = [(float(u.attrib["x"]), u.attrib["y"], u.attrib["href"] == "#y") for u in root.iter(f"{SVG}use")]
    shown = " ".join(texts("metrics"))
    assert len(marks) == 2 * 4 * 8
    for grid in ([m for m in marks if m[0] < 400], [m for m in marks if m[0] >= 400]):
        right = sum(mark for _, _, mark in grid)
        solved = len({row for _, row, mark in grid if mark})
        assert f"{right} of 32 = {right / 32:.2f}" in shown
        assert f"{solved} of 4 = {solved / 4:.2f}" in shown
