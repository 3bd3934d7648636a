"""Every command that a page shows runs: `reasonloop` verbs for real, in a folder with what the pages speak of; trainings are planned
(`--dry-run`), since they are trained elsewhere in the tests; scripts and make targets must be there."""

from __future__ import annotations

import io
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from run_fixtures import small_recipe, temporary, weak_model

from reasonloop.cli import main

ROOT = Path(__file__).parent.parent
GENERATED = {"cli.md", "recipes.md", "log.md"}
PAGES = [
    page
    for page in sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")], key=str)
    if page.name not in GENERATED and not {"_build", "log"} & {*page.relative_to(ROOT).parts}
]
SHELL = ("git", "cd", "source", "open", "xdg-open", "pip", "sudo", "docker", "curl", "brew", "export", "eval", "wsl", "srun")
"""Commands of the system's own"""


def commands(text: str) -> Iterator[str]:
    """The command lines of a page: of its blocks for a shell, and of its indented blocks."""
    blocks = re.findall(r"(?ms)^```(?:bash|sh|console)?\n(.*?)^```$", text)
    outside = re.sub(r"(?ms)^(```+|:::+).*?^\1\s*$", "", text)
    blocks += [re.sub(r"(?m)^    ", "", block) for block in re.findall(r"(?m)(?:^    .*\n)+", outside)]
    for block in blocks:
        for line in block.replace("\\\n", " ").splitlines():
            words = line.split(None, 1)
            if words and words[0] in ("reasonloop", "make", "python", "echo", "torchrun", *SHELL):
                yield line.strip()


def all_commands() -> dict[str, str]:
    """Command line -> the page that shows it."""
    return {line: page.relative_to(ROOT).as_posix() for page in PAGES for line in commands(page.read_text())}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages speak of: problem files, recipes, a model, and finished runs."""
    here = tmp_path_factory.mktemp("world")
    for name in ("recipes", "docs", "benchmarks", "examples", "reasonloop"):
        (here / name).symlink_to(ROOT / name)
    problems = [{"prompt": f"{n} plus {n} ?", "answer": str(2 * n)} for n in range(2, 14)]
    lines = [json.dumps(one) + "\n" for one in problems]
    (here / "train.jsonl").write_text("".join(lines[:8]))
    (here / "MATH-500").mkdir()
    for name in ("test.jsonl", "MATH-500/test.jsonl"):
        (here / name).write_text("".join(lines[8:]))
    pq.write_table(pa.Table.from_pylist(problems[:8]), here / "train.parquet")
    (here / "mine.csv").write_text("Exercise,Key\n1 + 1,2\n2 + 2,4\n")
    rows = [
        {"extra_info": {"question": f"{n} + 1", "index": n}, "reward_model": {"ground_truth": str(n + 1)}} for n in (1, 2)
    ]
    pq.write_table(pa.Table.from_pylist(rows), here / "rl.parquet")
    return here
