"""The figures that pages quote, and the result files that they are from: python evidence/quoted.py [--check]

A figure in the text stands behind an HTML comment, which no reader sees and which says where it is from:

    <!--rloop-room: rloop - vanilla, avg@32, relative-->+23 % [15, 31]     a comparison; without "relative" the difference
    <!--rloop-room: rloop, avg@32-->0.394                                  an arm
    <!--rloop-confirm: rloop - vanilla, avg@32, ahead-->8 of 8 seeds       the seeds in which the first is ahead
    <!--rloop: rloop - vanilla, avg@32, by seeds-->-0.010 [-0.052, 0.033]  the difference by its seeds alone, Student's t
    <!--rloop/finishing#/arms/base/cut_off-->89 %                          a place in any other file (a list: its mean)

`rloop-room` is evidence/rloop-room/results.json, `rloop-room/stops` evidence/rloop-room/stops.json. `<!--table NAME-->` to
`<!--end-->` is a table of page_tables.py, study_tables.py or run_tables.py. `<!--paper-->` marks what others have
published. This script writes figures and tables anew, as many digits of each as the page has; --check, like the tests,
only says what isn't so.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

ROOT = Path(__file__).parent.parent
PAGES = (
    "README.md", "docs/evidence.md", "docs/evidence/studies.md", "docs/evidence/runs.md", "docs/lora.md", "docs/branches.md",
    "docs/rlsp.md",
)  # fmt: skip
NUMBER = r"[-+]?\d+(?:\.\d+)?"
FIGURE = rf"(?P<mean>{NUMBER})(?P<percent> ?%)?(?:(?P<bold>\*\*)? \[(?P<low>{NUMBER}), (?P<high>{NUMBER})\])?"
QUOTED = re.compile(rf"<!--(?P<where>[^<>]+?)-->(?P<before>\**){FIGURE}")
TABLE = re.compile(r"<!--table (?P<name>[\w-]+)-->\n(?P<text>.*?)<!--end-->\n", re.DOTALL)
OTHERS = "paper"
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365}  # by degrees of freedom


class Unfounded(Exception):
    """A reference that leads nowhere."""


@dataclass(frozen=True)
class Found:
    """What a result file holds."""

    value: float
    low: float | None = None
    high: float | None = None


@cache
def read(name: str) -> Any:
    file = ROOT / "evidence" / f"{name if '/' in name or name == 'forgetting' else f'{name}/results'}.json"
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError:
        raise Unfounded(f"{name}: no file {file}") from None


@cache
def find(where: str) -> Found:
    """What the reference leads to. Unfounded where it leads nowhere, or two ways."""
    if "#/" in where:
        name, _, pointer = where.partition("#/")
        return at(read(name), pointer, where)
    name, colon, rest = where.partition(": ")
    name, _, part = name.partition("#")
    results = read(name)[part] if part else read(name)
    arms, comma, rest = rest.partition(", ")
    metric, _, kind = rest.partition(", ")
    if not colon or not comma or kind not in {"", "relative", "ahead", "by seeds"}:
        raise Unfounded(f"{where}: expected FILE: ARM[ - ARM], METRIC[, relative|ahead|by seeds] or FILE#/place")
    a, minus, b = arms.partition(" - ")
    return difference(results, a, b, metric, kind) if minus else own(results, a, metric)


def at(value: Any, pointer: str, where: str) -> Found:
    for key in pointer.split("/"):
        if isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
            continue
        if not isinstance(value, dict) or key not in value:
            raise Unfounded(f"{where}: no {key!r}")
        value = value[key]
    if isinstance(value, dict):
        middle = next((value[key] for key in ("value", "absolute", "difference") if key in value), None)
        bounds = value.get("ci95", value.get("ci95_absolute"))
        if middle is None:
            raise Unfounded(f"{where}: no figure")
        return Found(middle, *(bounds or ()))
    return Found(fmean(value) if isinstance(value, list) else value)


def own(results: dict[str, Any], arm: str, metric: str) -> Found:
    try:
        values = results["arms"][arm]
        bounds = values.get("ci95", {})  # of results of older versions there are none
        if not metric.startswith("avg@"):
            values, bounds, metric = values["pass@k"], bounds.get("pass@k", {}), metric.removeprefix("pass@")
        return Found(fmean(values[metric]), *bounds.get(metric, ()))
    except KeyError:
        raise Unfounded(f"{arm}, {metric}: no such arm or metric; arms: {', '.join(results['arms'])}") from None


def difference(results: dict[str, Any], a: str, b: str, metric: str, kind: str) -> Found:
    for row in results["comparisons"]:
        if row["metric"] != metric or {row["a"], row["b"]} != {a, b}:
            continue
        forward = row["a"] == a
        if kind == "relative" and forward:
            return Found(row["relative"], *row["ci95"])
        if kind == "ahead" and forward:
            pairs = row.get("pairs", ())
            return Found(row["ahead_in"] if "ahead_in" in row else sum(pair["a"] > pair["b"] for pair in pairs))
        if kind == "by seeds" and forward:
            return Found(*by_seeds([pair["a"] - pair["b"] for pair in row["pairs"]]))
        if not kind:
            low, high = row["ci95_absolute"]
            return Found(row["absolute"], low, high) if forward else Found(-row["absolute"], -high, -low)
    raise Unfounded(f"{a} - {b}, {metric}, {kind or 'absolute'}: not compared")


def by_seeds(values: list[float]) -> tuple[float, float, float]:
    """The mean, and its 95 % interval by Student's t."""
    half = T95[len(values) - 1] * stdev(values) / sqrt(len(values))
    return fmean(values), fmean(values) - half, fmean(values) + half


def number(value: float, like: str) -> str:
    """The value with the sign and the digits that `like` has."""
    digits = len(like.partition(".")[2])
    text = f"{value:+.{digits}f}" if like[0] in "+-" else f"{value:.{digits}f}"
    return text.replace("-", "", 1) if float(text) == 0 and text.startswith("-") else text


def quoted(match: re.Match[str]) -> str:
    """A reference with its figure as the result file has it."""
    where = match["where"].strip()
    if where == OTHERS or where.startswith(("table ", "end")):
        return match[0]
    found, scale = find(where), 100.0 if match["percent"] else 1.0
    text = (
        f"<!--{match['where']}-->{match['before']}{number(scale * found.value, match['mean'])}{match['percent'] or ''}"
    )
    if match["low"] is None:
        return text
    if found.low is None or found.high is None:
        raise Unfounded(f"{where}: without an interval")
    bounds = ((found.low, match["low"]), (found.high, match["high"]))
    low, high = (number(scale * bound, like.lstrip("+-")) for bound, like in bounds)
    return f"{text}{match['bold'] or ''} [{low}, {high}]"


def renewed(page: str, tables: dict[str, Callable[[], str]]) -> str:
    """The page with every quoted figure and every table as the result files have them."""

    def table(match: re.Match[str]) -> str:
        if match["name"] not in tables:
            raise Unfounded(f"no table {match['name']!r} in evidence/page_tables.py")
        return f"<!--table {match['name']}-->\n{tables[match['name']]()}<!--end-->\n"

    return TABLE.sub(table, QUOTED.sub(quoted, page))


# What a page of evidence can't say without saying where it is from.
BARE = re.compile(
    rf"{NUMBER}(?: ?%)?(?:\*\*)? \[{NUMBER}(?: ?%)?, {NUMBER}(?: ?%)?\]"  # with an interval
    r"|(?<![\w.,-])[-+]?\d\.\d{3}\b"  # an average, a pass@k
    r"|[-+]?\d+(?:\.\d+)? %"
)


def bare(page: str) -> list[str]:
    """Figures of results without a reference, outside of tables that are made and of code."""
    rest = TABLE.sub("", page)
    rest = re.sub(r"```.*?```|`[^`\n]*`|^    .*$", "", rest, flags=re.DOTALL | re.MULTILINE)
    rest = QUOTED.sub("", rest)
    return [match[0] for match in BARE.finditer(rest) if match[0] != "95 %"]


def main() -> int:
    from claims import TABLES as CLAIMS
    from page_tables import TABLES
    from run_tables import RUNS
    from study_tables import STUDIES

    check, stale = "--check" in sys.argv, False
    for name in PAGES:
        page = (ROOT / name).read_text(encoding="utf-8")
        new = renewed(page, TABLES | STUDIES | RUNS | CLAIMS)
        if new != page:
            stale = True
            print(f"{name}: {'not as the result files have it: make docs' if check else 'written anew'}")
            if not check:
                (ROOT / name).write_text(new, encoding="utf-8")
    return int(check and stale)


if __name__ == "__main__":
    sys.exit(main())
