"""What the tables of docs/speed.md are made with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from pairs import RESULTS


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def machine(*results: dict[str, Any]) -> str:
    machines = [(result["machine"]["threads"], result["machine"]["processor"]) for result in results]
    return "; ".join(dict.fromkeys(f"{count} thread{'s' * (count > 1)}, {name}" for count, name in machines))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def ratio(result: dict[str, Any]) -> str:
    """The median of the pairs, with their range."""
    found = [pair["peer"] / pair["ours"] for pair in result["pairs"]]
    several = f"{digits(min(found))} to {digits(max(found))}" if len(found) > 1 else "one pair"
    return f"{digits(result['median_ratio'])} ({several})"


def digits(value: float) -> str:
    return f"{value:.0f}" if value >= 20 else f"{value:.1f}" if value >= 5 else f"{value:.2f}"


def seconds(result: dict[str, Any], side: str) -> str:
    return f"{digits(median(pair[side] for pair in result['pairs']))} s"
