"""The figure of a study: python evidence/figure.py FOLDER     (FOLDER/results.json -> FOLDER/figure.svg)

Two panels, average above pass@k with the largest k: a row an arm, a ring a seed, a bar the mean over seeds.
"""

from __future__ import annotations

import json
import sys
from html import escape
from pathlib import Path
from statistics import fmean
from typing import Any

ROW, TOP, PANEL, BETWEEN, BOTTOM = 24, 40, 250, 66, 30
LETTER = 6.8  # mean width
COLOURS = ("base", "vanilla", "vanilla early-stopped", "sft")
STYLE = """
text { font: 13px system-ui, sans-serif; fill: var(--ink) }
.faint { font-size: 12px; fill: var(--faint) }
.title { font-weight: 600 }
.grid { stroke: var(--grid) }
svg { --ground: #fff; --ink: #1f2328; --faint: #59636e; --grid: #d9dee3;
  --base: #59636e; --vanilla: #b8500d; --early: #8a7410; --sft: #7a4fb5; --rloop: #1f5fc4 }
@media (prefers-color-scheme: dark) { svg { --ground: #0d1117; --ink: #e6edf3; --faint: #9aa4af; --grid: #30363d;
  --base: #9aa4af; --vanilla: #f0883e; --early: #d6be4a; --sft: #b794f0; --rloop: #6ea8fe } }
"""


def panel(arms: dict[str, list[float]], title: str, left: int, top: int) -> list[str]:
    every = [value for values in arms.values() for value in values]
    low, high = min(every), max(every)
    margin = 0.08 * (high - low or 1.0)
    low, high = max(0.0, low - margin), min(1.0, high + margin)

    def x(value: float) -> float:
        return left + PANEL * (value - low) / (high - low)

    bottom = top + ROW * len(arms)
    parts = [f'<text x="{left}" y="{top - 16}" class="title">{escape(title)}</text>']
    for i in range(5):
        value = low + (high - low) * i / 4
        parts.append(f'<line class="grid" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{top - 6}" y2="{bottom}"/>')
        parts.append(
            f'<text x="{x(value):.1f}" y="{bottom + 17}" class="faint" text-anchor="middle">{value:.2f}</text>'
        )
    for row, (arm, values) in enumerate(arms.items()):
        y, colour, mean = top + ROW * (row + 0.5), f"var(--{colour_of(arm)})", fmean(values)
        parts.append(f'<text x="{left - 12}" y="{y + 4:.1f}" text-anchor="end">{escape(arm)}</text>')
        for value in values:
            parts.append(
                f'<circle cx="{x(value):.1f}" cy="{y:.1f}" r="4" fill="none" stroke="{colour}" opacity="0.7"/>'
            )
        parts.append(
            f'<line x1="{x(mean):.1f}" x2="{x(mean):.1f}" y1="{y - 8:.1f}" y2="{y + 8:.1f}" stroke="{colour}" '
            f'stroke-width="3"><title>{escape(arm)}: {mean:.3f}</title></line>'
        )
    return parts


def colour_of(arm: str) -> str:
    """An arm's kind is what its name begins with; options may follow."""
    kinds = [kind for kind in COLOURS if arm.startswith(kind)]
    return max(kinds, key=len).replace("vanilla early-stopped", "early") if kinds else "rloop"


def figure(results: dict[str, Any]) -> str:
    arms = results["arms"]
    metric = next(key for arm in arms.values() for key in arm if key.startswith("avg@"))
    k = max(arms[next(iter(arms))]["pass@k"], key=int)
    second = TOP + ROW * len(arms) + BETWEEN
    left = max(110, round(LETTER * max(map(len, arms))) + 24)
    width, height = left + PANEL + 26, second + ROW * len(arms) + BOTTOM
    of = {metric: {name: arm[metric] for name, arm in arms.items()}}
    of |= {f"pass@{k}": {name: arm["pass@k"][k] for name, arm in arms.items()}}
    told = "; ".join(f"{name} {' / '.join(f'{fmean(values[name]):.3f}' for values in of.values())}" for name in arms)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img" '
        'aria-labelledby="title what">',
        f'<title id="title">{" and ".join(of)} of each arm: a ring a seed, a bar the mean</title>',
        f'<desc id="what">{escape(told)}</desc>',
        f"<style>{STYLE}</style>",
        f'<rect width="{width}" height="{height}" rx="6" fill="var(--ground)"/>',
    ]
    for (name, values), top in zip(of.items(), (TOP, second), strict=True):
        parts += panel(values, name, left, top)
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (folder / "figure.svg").write_text(figure(json.loads((folder / "results.json").read_text())))
