"""The badges of README.md, made from what the project says of itself: python docs/make_badges.py"""

from __future__ import annotations

import tomllib
from pathlib import Path

HERE = Path(__file__).parent
SVG = """<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" aria-label="{left}: {right}">
<title>{left}: {right}</title>
<rect width="{width}" height="20" rx="3" fill="#4a5663"/>
<path d="M{split} 0h{body}a3 3 0 0 1 3 3v14a3 3 0 0 1-3 3H{split}z" fill="{colour}"/>
<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">
<text x="{left_x}" y="14" textLength="{left_length}">{left}</text>
<text x="{right_x}" y="14" textLength="{right_length}">{right}</text>
</g></svg>
"""


def badges() -> dict[str, str]:
    """File name -> SVG."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    python = project["requires-python"].removeprefix(">=")
    return {
        "badge-python.svg": badge("python", f"{python} or newer", "#2b6ca3"),
        "badge-licence.svg": badge("licence", project["license"], "#2b6ca3"),
        "badge-cpu.svg": badge("CPU", "two cores are enough", "#2c7a4b"),
        "badge-gpu.svg": badge("GPU", "not yet run", "#b3541e"),
    }


def badge(left: str, right: str, colour: str) -> str:
    left_length, right_length = round(6.6 * len(left)), round(6.4 * len(right))
    split = left_length + 14
    width = split + right_length + 14
    places = {"left_x": split / 2, "right_x": split + (right_length + 14) / 2, "body": width - split - 3}
    lengths = {"left_length": left_length, "right_length": right_length, "split": split, "width": width}
    return SVG.format(left=left, right=right, colour=colour, **places, **lengths)


if __name__ == "__main__":
    for name, svg in badges().items():
        (HERE / "images" / name).write_text(svg, encoding="utf-8")
