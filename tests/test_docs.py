"""What the documentation shows works as it stands there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from run_fixtures import metrics, weak_model

from reasonloop.cli import main
from reasonloop.store.schema import COLUMNS

PAGE = (Path(__file__).parent.parent / "docs" / "your-own.md").read_text(encoding="utf-8")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with every file of the page in it."""
    for language, text in re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL):
        name = "my.toml" if language == "toml" else text.split("\n", 1)[0].removeprefix("# ")
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in ("multiples", "effort"):
        sys.modules.pop(name, None)


def test_a_task_and_a_judge_of_ones_own(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "check", "multiples:Multiples"]) == 0
    small = ["method=rl", "rl.steps=1", "rl.problems_per_step=4", "rl.group_size=2", "eval.samples=1"]
    small.append(f"model.path={weak_model()}")
    judged = ["exploration.form=judge", "exploration.judge.model=effort:distinct_words"]
    assert main(["run", "my.toml", *small, *judged, "--out", "run"]) == 0
    (line,) = metrics(here / "run", stage="explore")
    assert line["judge_failures"] == 0
    assert line["alpha"] == 0.8


def test_every_column_of_the_store_is_described() -> None:
    table = PAGE[PAGE.index("| column |") :].split("\n\n")[0]
    cells = [row.split("|")[1] for row in table.splitlines()[2:]]
    assert {name for cell in cells for name in re.findall(r"`(\w+)`", cell)} == {*COLUMNS, "response_hash"}
