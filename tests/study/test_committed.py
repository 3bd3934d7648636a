"""Every committed study can be compared from its archives: they are of the recipes that it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from reasonloop.study.archive import unpack
from reasonloop.study.command import check_runs
from reasonloop.study.definition import checked_arms, load_study

ROOT = Path(__file__).parents[2]
STUDIES = sorted(
    file
    for file in ROOT.glob("evidence/*/*.toml")
    if "\n[arms]\n" in file.read_text(encoding="utf-8")
    and (file.parent / ("finished" if file.stem == "study" else f"{file.stem}.finished")).is_dir()
)


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_its_archives_are_of_its_arms(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(file.parent)
    study = load_study(file)
    unpack(study, tmp_path)
    check_runs(study, checked_arms(study), tmp_path, begin=False)
    assert any(tmp_path.iterdir())
