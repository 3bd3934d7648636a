"""Runs of earlier versions, from the committed archives: brought up, they are compared, reported and continued."""

from __future__ import annotations

import json
import tarfile
import tomllib
from pathlib import Path

import pytest

from reasonloop import config
from reasonloop.compare.arms import read_arms
from reasonloop.config import stored_recipe
from reasonloop.errors import InputError
from reasonloop.study.archive import extract
from reasonloop.study.earlier import upgrade

ARCHIVES = Path(__file__).parents[2] / "evidence"


@pytest.mark.parametrize(
    ("archive", "arms"),
    [
        ("rloop-confirm/finished/rloop-10", {"rloop", "vanilla", "vanilla early-stopped", "base"}),
        ("rloop/finished/adaptive-0", {"rloop", "vanilla", "base"}),
        ("rloop/finished/pass-k-0", {"rloop", "base"}),
        ("rloop-smollm2/finished/rloop-0", {"rloop", "base"}),
    ],
)
def test_an_archived_run_is_brought_up(archive: str, arms: set[str], tmp_path: Path) -> None:
    with tarfile.open(ARCHIVES / f"{archive}.tar.gz") as tar:
        extract(tar, tmp_path)
    run = tmp_path / Path(archive).name
    with pytest.raises(InputError, match=r"made by an earlier version.*evidence/upgrade\.py"):
        read_arms([str(run)])
    before = {path.name: json.loads(path.read_text()) for path in (run / "evals").glob("*.json")}
    upgrade(run)
    assert {arm.name for arm in read_arms([str(run)]).arms} <= arms
    assert {"rloop", "base"} <= {arm.name for arm in read_arms([str(run)]).arms}
    for name, evaluation in before.items():
        after = json.loads((run / "evals" / name).read_text())
        assert {key: after[key] for key in evaluation} == evaluation
    recipe = config.parse(stored_recipe(tomllib.loads((run / "config.toml").read_text())), [], "upgraded")
    assert recipe.rl.advantage == ("pass@4" if "pass-k" in archive else None)
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    upgrade(run)  # once more: nothing left to do
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == files
