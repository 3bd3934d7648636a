"""The plan in docs/scale.md, as `--dry-run` prints it: python docs/make_scale.py writes it there anew.

The model's shape is the published one, and the problem files' sizes are SIZES: neither has to be here.
"""

from __future__ import annotations

import re
from pathlib import Path

from reasonloop import config
from reasonloop.methods import plan
from reasonloop.planning.shapes import published
from reasonloop.planning.told import told

PAGE = Path(__file__).parent / "scale.md"
NAME = "scale/qwen2.5-math-7b"
SIZES = {"train": 17_000, "probe": 128, "test": 30}
"""About as many problems as DAPO-Math-17k has, and those of AIME 2024"""
BLOCK = re.compile(r"(?ms)(?<=<!-- plan -->\n```text\n).*?(?=^```$)")


def block() -> str:
    recipe = config.load(config.recipe_file(Path(NAME)))
    shape = published(recipe.model.source)
    assert shape is not None
    return "".join(f"# {line}\n" for line in told(recipe, plan(recipe, SIZES), shape))


def page() -> str:
    """The page with the plan as it is today."""
    return BLOCK.sub(lambda _: block(), PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
