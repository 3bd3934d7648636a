"""Average against pass@32 on the way, a curve a method: python evidence/tradeoff.py     (stops.json -> tradeoff-*.svg)

Two pictures with the same axes, made to stand side by side, or one below the other where the page is narrow.
"""

from __future__ import annotations

import json
from html import escape
from statistics import fmean
from typing import Any

from counts import HERE

WIDTH, HEIGHT = 400, 446
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 62, 112
X, Y = (0.20, 0.44), (0.59, 0.91)
STYLE = """
text { font: 13px system-ui, sans-serif; fill: var(--ink) }
.title { font-size: 15px; font-weight: 600 }
.small { font-size: 12px }
.faint { fill: var(--faint) }
.grid { stroke: var(--grid) }
.range { stroke-width: 1.2; opacity: 0.3 }
.curve { fill: none; stroke-width: 2.2 }
svg { --ground: #fff; --ink: #1f2328; --faint: #59636e; --grid: #d9dee3; --base: #59636e;
  --vanilla: #b8500d; --rloop: #1f5fc4; --gentle: #0f7b6c }
@media (prefers-color-scheme: dark) { svg { --ground: #0d1117; --ink: #e6edf3; --faint: #9aa4af; --grid: #30363d;
  --base: #9aa4af; --vanilla: #f0883e; --rloop: #6ea8fe; --gentle: #3fc6a8 } }
"""
# name, colour, mark, the policies in stops.json
CURVES = (
    ("vanilla RL", "vanilla", "square", ("vanilla@12800", "vanilla@25600", "vanilla@38400", "vanilla-275-steps@70400")),
    ("RLoop, RFT at 1e-3, 4 epochs", "rloop", "disc", tuple(f"rloop@{n}" for n in (12800, 25600, 38400))),
    (
        "RLoop, RFT at 3e-4, 2 epochs",
        "gentle",
        "diamond",
        tuple(f"rloop-gentle-rft@{n}" for n in (12800, 25600, 38400)),
    ),
)
GROUNDS = {"rloop-room": ("2,048 training problems", "2048"), "rloop-room-96": ("96 training problems", "96")}
Place = tuple[float, float]


def x(value: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (value - X[0]) / (X[1] - X[0])


def y(value: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - Y[0]) / (Y[1] - Y[0])


def place(arm: dict[str, Any]) -> Place:
    return fmean(arm["avg@32"]), fmean(arm["pass@k"]["32"])


def axes() -> list[str]:
    parts = []
    for tick in (0.20, 0.25, 0.30, 0.35, 0.40):
        parts.append(f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(text(x(tick), HEIGHT - BOTTOM + 17, f"{tick:.2f}", "small faint", "middle"))
    for tick in (0.60, 0.70, 0.80, 0.90):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(text(LEFT - 7, y(tick) + 4, f"{tick:.1f}", "small faint", "end"))
    parts.append(text(WIDTH - RIGHT, HEIGHT - BOTTOM + 34, "average: right tries →", "small", "end"))
    parts.append(text(LEFT - 38, TOP - 12, "↑ pass@32: problems solved in 32 tries", "small", "start"))
    return parts


def text(left: float, top: float, what: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{left:.1f}" y="{top:.1f}" class="{kind}" text-anchor="{anchor}">{escape(what)}</text>'


def mark(shape: str, colour: str, at: Place) -> str:
    left, top = at
    paint = f'fill="var(--{colour})"'
    if shape == "disc":
        return f'<circle cx="{left:.1f}" cy="{top:.1f}" r="5" {paint}/>'
    turn = f' transform="rotate(45 {left:.1f} {top:.1f})"' if shape == "diamond" else ""
    return f'<rect x="{left - 4.5:.1f}" y="{top - 4.5:.1f}" width="9" height="9" {paint}{turn}/>'


def ranges(arm: dict[str, Any], colour: str) -> list[str]:
    """The intervals of both numbers, a cross."""
    left, top = (f(v) for f, v in zip((x, y), place(arm), strict=True))
    low, high = arm["ci95"]["avg@32"]
    under, over = arm["ci95"]["pass@k"]["32"]
    line = f'<line class="range" stroke="var(--{colour})"'
    return [
        f'{line} x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{top:.1f}" y2="{top:.1f}"/>',
        f'{line} x1="{left:.1f}" x2="{left:.1f}" y1="{y(under):.1f}" y2="{y(over):.1f}"/>',
    ]


def curve(colour: str, shape: str, arms: list[dict[str, Any]], base: dict[str, Any]) -> list[str]:
    points = [(x(a), y(p)) for a, p in map(place, (base, *arms))]
    line = " ".join(f"{left:.1f},{top:.1f}" for left, top in points)
    parts = [part for arm in arms for part in ranges(arm, colour)]
    parts.append(f'<polyline class="curve" stroke="var(--{colour})" points="{line}"/>')
    return parts + [mark(shape, colour, at) for at in points[1:]]


def words(ground: dict[str, Any]) -> str:
    """The picture for who doesn't see it."""
    told = [f"base {'{:.3f} / {:.3f}'.format(*place(ground['base']))}"]
    for name, _, _, stops in CURVES:
        own = [f"{'{:.3f} / {:.3f}'.format(*place(ground[stop]))}" for stop in stops if stop in ground]
        told.append(f"{name} {', '.join(own)}")
    return "Average / pass@32 after 12,800, 25,600, 38,400 (and 70,400) rollouts: " + "; ".join(told)


def figure(ground: dict[str, Any], title: str) -> str:
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" '
        'aria-labelledby="title what">',
        f'<title id="title">Average against pass@32, {escape(title)}</title>',
        f'<desc id="what">{escape(words(ground))}</desc>',
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="6" fill="var(--ground)"/>',
        text(LEFT - 38, 26, title, "title"),
        *axes(),
    ]
    for _, colour, shape, stops in CURVES:
        parts += curve(colour, shape, [ground[stop] for stop in stops if stop in ground], ground["base"])
    average, solved = place(ground["base"])
    base = x(average), y(solved)
    parts += [*ranges(ground["base"], "base"), mark("disc", "base", base)]
    parts.append(text(base[0] - 8, base[1] - 9, "base", "small", "middle"))
    for row, (name, colour, shape, _) in enumerate(CURVES):
        top = HEIGHT - 58 + 17 * row
        parts += [mark(shape, colour, (LEFT - 32, top - 4)), text(LEFT - 20, top, name, "small")]
    last = ", last ■ 70,400" if "vanilla-275-steps@70400" in ground else ""
    told = f"marks: after 12,800, 25,600, 38,400{last} rollouts"
    parts.append(text(LEFT - 38, HEIGHT - 8, told, "small faint"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    for study, (title, short) in GROUNDS.items():
        ground = json.loads((HERE / study / "stops.json").read_text())["arms"]
        (HERE / f"tradeoff-{short}.svg").write_text(figure(ground, title), encoding="utf-8")


if __name__ == "__main__":
    main()
