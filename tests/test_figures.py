"""What pages say was measured is what committed result files hold: of the file, arm and metric that the page names."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import fmean
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
EVIDENCE = ("docs/evidence.md", "docs/evidence/studies.md", "docs/evidence/runs.md")
# Pages on which no figure of a result may stand without saying where it is from.
BOUND = ("README.md", *EVIDENCE)


@pytest.fixture
def quoted(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "evidence"))
    return importlib.import_module("quoted")


def tables() -> dict[str, Any]:
    named = {"page_tables": "TABLES", "study_tables": "STUDIES", "run_tables": "RUNS", "claims": "TABLES"}
    return {
        name: table
        for module, own in named.items()
        for name, table in getattr(importlib.import_module(module), own).items()
    }


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [*BOUND, "docs/lora.md", "docs/branches.md", "docs/rlsp.md"])
def test_figures_and_tables_are_those_of_the_files_that_they_name(name: str, quoted: ModuleType) -> None:
    page = text(name)
    new = quoted.renewed(page, tables())
    assert [
        (a, b) for a, b in zip(page.splitlines(), new.splitlines(), strict=False) if a != b
    ] == []  # else: make docs
    assert new == page
    if name in BOUND:
        assert quoted.QUOTED.findall(page)


@pytest.mark.parametrize("name", BOUND)
def test_no_figure_stands_without_its_source(name: str, quoted: ModuleType) -> None:
    assert quoted.bare(text(name)) == []


def test_claims_are_what_the_result_files_say_of_them(quoted: ModuleType) -> None:
    claims = importlib.import_module("claims")
    kept = json.loads(text("evidence/claims.json"))
    assert kept == claims.claims()  # else: python evidence/claims.py
    for row in kept:
        if row["verdict"] in ("reproduced", "not"):
            low, high = row["ci95"]
            assert (low > 0) != (high < 0), row
            assert (low > 0) == ((row["claimed"] == "above") == (row["verdict"] == "reproduced")), row
    assert {row["verdict"] for row in kept} == {"reproduced", "not", "can't be told", "untested"}


def test_with_three_seeds_a_claim_needs_the_seeds_alone(quoted: ModuleType) -> None:
    claims = importlib.import_module("claims")
    found = quoted.Found(0.1, 0.05, 0.15)
    assert claims.verdict(found, "+", [0.1, 0.1, 0.11]) == "reproduced"
    assert claims.verdict(found, "+", [0.01, 0.1, 0.19]) == "can't be told"
    assert claims.verdict(found, "+", [0.01, 0.1, 0.19, 0.1]) == "reproduced"
    assert claims.verdict(found, "-", []) == "not"
    assert claims.verdict(quoted.Found(0.1, -0.05, 0.15), "+", []) == "can't be told"


LINE = "ahead by <!--rloop-room: rloop - vanilla, avg@32, relative-->**+23 %** [15, 31] and by 0.5\n"
OF_AN_ARM = (
    "it has <!--rloop-room: rloop, pass@32-->0.788, cut off <!--rloop-room/finishing#/arms/rloop/cut_off-->7 %\n"
)


@pytest.mark.parametrize("line", [LINE, OF_AN_ARM])
def test_true_figures_stay_as_they_are(line: str, quoted: ModuleType) -> None:
    assert quoted.renewed(line, {}) == line
    assert quoted.bare(line) == []


@pytest.mark.parametrize(
    ("line", "right", "wrong"),
    [
        (LINE, "rloop - vanilla", "rloop-gentle-rft - vanilla"),  # another arm
        (LINE, "avg@32", "pass@32"),  # another metric
        (LINE, "rloop-room:", "rloop-room-96:"),  # another study
        (LINE, ", relative", ""),  # not relative
        (LINE, "+23", "+24"),
        (LINE, "[15,", "[16,"),
        (LINE, "31]", "32]"),
        (OF_AN_ARM, "rloop,", "vanilla,"),
        (OF_AN_ARM, "pass@32", "pass@8"),
        (OF_AN_ARM, "0.788", "0.789"),
        (OF_AN_ARM, "arms/rloop/", "arms/vanilla/"),
    ],
)
def test_a_wrong_attribution_is_noticed(line: str, right: str, wrong: str, quoted: ModuleType) -> None:
    assert right in line
    altered = line.replace(right, wrong)
    assert quoted.renewed(altered, {}) != altered


def test_nearly_every_reference_on_the_pages_would_be_noticed(quoted: ModuleType) -> None:
    """The figure of the other metric is another one (but for chance: two that round to the same digits)."""
    same = total = 0
    for name in BOUND:
        for match in quoted.QUOTED.finditer(text(name)):
            metric = re.search(r"(avg|pass)@(\d+)(?=,|$)", match["where"])
            if metric and "ahead" not in match["where"] and "#/" not in match["where"]:
                other = f"pass@{metric[2]}" if metric[1] == "avg" else f"avg@{metric[2]}"
                if other == "avg@8":
                    other = "pass@32"
                try:
                    altered = match[0].replace(metric[0], other)
                    same += quoted.renewed(altered, {}) == altered
                except quoted.Unfounded:
                    pass
                total += 1
    assert total > 40
    assert same <= 1


def test_references_that_lead_nowhere_are_refused(quoted: ModuleType) -> None:
    for where in (
        "rloop-room: rloop - vanila, avg@32",
        "rloop-room: rlop, avg@32",
        "rloop-room: rloop, avg@16",
        "rloop-rom: rloop, avg@32",
        "rloop-room: vanilla - rloop, avg@32, relative",
        "rloop-room/finishing#/arms/rloop/cutoff",
        "rloop-room",
    ):
        with pytest.raises(quoted.Unfounded):
            quoted.find(where)
    with pytest.raises(quoted.Unfounded):
        quoted.renewed("<!--table nosuch-->\n<!--end-->\n", tables())


@pytest.mark.parametrize(
    "line", ["it is 0.394 then", "**+23 %** [15, 31]", "ahead by 17 %", "-0.013 [-0.040, 0.015]", "+5 %"]
)
def test_figures_without_a_source_are_found(line: str, quoted: ModuleType) -> None:
    assert quoted.bare(line)
    assert not quoted.bare(f"```\n{line}\n```\n")


def test_a_difference_is_that_of_the_counts(quoted: ModuleType) -> None:
    """From the archives to a quoted figure, by another way."""
    counts = importlib.import_module("counts")
    shares: dict[str, list[float]] = {"rft": [], "vanilla": []}
    for archive in counts.archives("rloop-room"):
        if archive.arm == "rloop":
            for key, name in (("rft", "iteration-2-rft"), ("vanilla", "vanilla")):
                (one,) = (e for e in archive.evaluations if e["name"] == name)
                shares[key].append(sum(p["correct"] for p in one["problems"]) / sum(p["n"] for p in one["problems"]))
    found = fmean(shares["rft"]) - fmean(shares["vanilla"])
    assert len(shares["rft"]) == 4
    for where in ("rloop-room: rloop - vanilla, avg@32", "rloop-room/stops: rloop@38400 - vanilla@38400, avg@32"):
        assert quoted.find(where).value == pytest.approx(found)


def leaves(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list | tuple):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(one, f"{at}/{key}")
    else:
        yield at, value


def alike(made: Any, held: Any) -> None:
    """The same places, and numbers that are the same but for rounding."""
    made_of, held_of = dict(leaves(made)), dict(leaves(held))
    assert made_of.keys() == held_of.keys()
    for at, value in made_of.items():
        assert held_of[at] == (pytest.approx(value, abs=1e-9) if isinstance(value, float) else value), at


@pytest.mark.parametrize("study", ["rloop-room-96", "rloop-smollm2"])
def test_stops_are_made_from_the_counts(study: str, quoted: ModuleType) -> None:
    made = importlib.import_module("stops").results(study)
    alike(made, json.loads(text(f"evidence/{study}/stops.json")))


def test_stops_agree_with_the_studies_results(quoted: ModuleType) -> None:
    """Arms that both files have, made by other code: values and intervals."""
    for name, last in (("rloop-room", 38400), ("rloop-room-96", 38400), ("rloop-confirm", 38400), ("rloop", 20480)):
        for arm in ("rloop", "vanilla"):
            for metric in ("avg@32", "pass@8", "pass@32"):
                a, b = quoted.find(f"{name}: {arm}, {metric}"), quoted.find(f"{name}/stops: {arm}@{last}, {metric}")
                assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high), abs=1e-9)


def test_what_is_lost_is_made_from_the_counts(quoted: ModuleType) -> None:
    alike(importlib.import_module("forgetting").results(), json.loads(text("evidence/forgetting.json")))


def test_pictures_are_made_from_the_result_files(quoted: ModuleType) -> None:
    tradeoff, figure = (importlib.import_module(name) for name in ("tradeoff", "figure"))
    for study, (title, short) in tradeoff.GROUNDS.items():
        ground = json.loads(text(f"evidence/{study}/stops.json"))["arms"]
        assert tradeoff.figure(ground, title) == text(f"evidence/tradeoff-{short}.svg")
    for file in sorted((ROOT / "evidence").glob("*/figure.svg")):
        assert figure.figure(json.loads(text(f"evidence/{file.parent.name}/results.json"))) == file.read_text(), file


@pytest.mark.parametrize("name", EVIDENCE)
def test_cells_are_short(name: str) -> None:
    for line in text(name).splitlines():
        for cell in re.sub(r"<!--.*?-->|\]\([^)]*\)", "", line).split("|")[1:-1] if line.startswith("|") else ():
            assert len(cell.split()) <= 12, cell


# README's figures that have no reference yet: they are somewhere in the result files, rounded as they should be.

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
def results() -> frozenset[tuple[float, float, float]]:
    files = sorted((ROOT / "evidence").rglob("*.json"))
    found = {one for file in files for one in intervals(json.loads(file.read_text()))}
    return frozenset(found | {(-middle, -high, -low) for middle, low, high in found})


def rounds_to(value: float, text: str) -> bool:
    digits = len(text.partition(".")[2])
    return abs(value - float(text)) <= 0.5 * 10**-digits + 1e-9


def test_intervals_of_the_first_page_are_those_of_result_files(quoted: ModuleType) -> None:
    wrong = []
    for figure in FIGURE.finditer(quoted.QUOTED.sub("", quoted.TABLE.sub("", text("README.md")))):
        scale = 100.0 if figure["percent"] else 1.0
        texts = (figure["mean"], figure["low"], figure["high"])
        if not any(all(rounds_to(scale * v, said) for v, said in zip(one, texts, strict=True)) for one in results()):
            wrong.append(figure[0])
    assert not wrong


def test_speed_is_made_from_the_result_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    importlib.import_module("tables").main()
    assert capsys.readouterr().out == (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")  # else: make docs
