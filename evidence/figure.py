"""The figure of a study: python evidence/figure.py FOLDER     (FOLDER/results.json -> FOLDER/figure.svg)

Two panels, average and pass@k with the largest k: a row an arm, a ring a seed, a bar the mean over seeds.
"""

from __future__ import annotations

import json
import sys
from html import escape
from pathlib import Path
from typing import Any

ROW, TOP, PANEL, GAP, BOTTOM = 26, 46, 250, 40, 34
LETTER = 6.4  # mean width
COLOURS = {"base": "#7b8088", "vanilla": "#c8621b", "vanilla early-stopped": "#a08a1c", "sft": "#7a4fb5"}


def panel(arms: dict[str, list[float]], title: str, left: int) -> list[str]:
    every = [value for values in arms.values() for value in values]
    low, high = min(every), max(every)
    margin = 0.08 * (high - low or 1.0)
    low, high = max(0.0, low - margin), min(1.0, high + margin)

    def x(value: float) -> float:
        return left + PANEL * (value - low) / (high - low)

    bottom = TOP + ROW * len(arms)
    parts = [f'<text x="{left}" y="{TOP - 18}" font-weight="600">{escape(title)}</text>']
    for i in range(5):
        value = low + (high - low) * i / 4
        parts.append(f'<line x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{TOP - 6}" y2="{bottom}" stroke="#8883"/>')
        parts.append(f'<text x="{x(value):.1f}" y="{bottom + 16}" text-anchor="middle" fill="#777">{value:.2f}</text>')
    for row, (arm, values) in enumerate(arms.items()):
        y, colour = TOP + ROW * (row + 0.5), colour_of(arm)
        for value in values:
            parts.append(
                f'<circle cx="{x(value):.1f}" cy="{y:.1f}" r="4" fill="none" stroke="{colour}" opacity="0.7"/>'
            )
        mean = sum(values) / len(values)
        parts.append(
            f'<line x1="{x(mean):.1f}" x2="{x(mean):.1f}" y1="{y - 8:.1f}" y2="{y + 8:.1f}" stroke="{colour}" '
            f'stroke-width="3"><title>{escape(arm)}: {mean:.3f}</title></line>'
        )
    return parts


def colour_of(arm: str) -> str:
    """An arm's kind is what its name begins with; options may follow."""
    kinds = [kind for kind in COLOURS if arm.startswith(kind)]
    return COLOURS[max(kinds, key=len)] if kinds else "#1f63c6"


def figure(results: dict[str, Any]) -> str:
    arms = results["arms"]
    metric = next(key for arm in arms.values() for key in arm if key.startswith("avg@"))
    k = max(arms[next(iter(arms))]["pass@k"], key=int)
    height = TOP + ROW * len(arms) + BOTTOM
    left = max(190, round(LETTER * max(map(len, arms))) + 30)
    width = left + 2 * PANEL + GAP + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        'font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for row, arm in enumerate(arms):
        y = TOP + ROW * (row + 0.5) + 4
        parts.append(f'<text x="{left - 14}" y="{y:.1f}" text-anchor="end">{escape(arm)}</text>')
    parts += panel({name: arm[metric] for name, arm in arms.items()}, metric, left)
    parts += panel({name: arm["pass@k"][k] for name, arm in arms.items()}, f"pass@{k}", left + PANEL + GAP)
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (folder / "figure.svg").write_text(figure(json.loads((folder / "results.json").read_text())))
