"""What torchrun's environment means, without torchrun."""

from __future__ import annotations

from pathlib import Path

import pytest

from reasonloop import config
from reasonloop.cli import main
from reasonloop.errors import InputError
from reasonloop.execute import execute
from reasonloop.machine import threads
from reasonloop.machine.launch import Launch, launched

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def as_rank(monkeypatch: pytest.MonkeyPatch, *values: object) -> None:
    for name, value in zip(NAMES, values, strict=True):
        monkeypatch.setenv(name, str(value))


def test_a_process_is_one_of_several_or_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    assert launched() == Launch(0, 1, 0, 1)
    monkeypatch.setenv("RANK", "3")  # a scheduler's, without the others
    assert launched() == Launch(0, 1, 0, 1)
    as_rank(monkeypatch, 5, 8, 1, 4)
    assert launched() == Launch(5, 8, 1, 4)


@pytest.mark.parametrize(
    "values", [(0, 0, 0, 0), (2, 2, 0, 1), ("x", 2, 0, 2), (0, 2, 2, 2), (0, 2, 0, 3), ("", 2, 0, 2)]
)
def test_what_makes_no_sense_is_refused(
    values: tuple[object, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    as_rank(monkeypatch, *values)
    with pytest.raises(InputError, match="expected them as torchrun sets them"):
        launched()
    assert main(["tasks", "list"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_ranks_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    for ranks, each in ((1, 16), (2, 8), (3, 5), (32, 1)):
        as_rank(monkeypatch, 0, ranks, 0, ranks)
        assert threads.available_cores() == each


def test_one_rank_alone_says_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    as_rank(monkeypatch, 1, 2, 1, 2)
    for argv in (["doctor"], ["run", "quickstart", "--dry-run"], ["nonsense"]):
        assert main(argv) == 0
    assert capsys.readouterr() == ("", "")
    as_rank(monkeypatch, 0, 2, 0, 2)
    assert main(["doctor"]) == 2
    assert "expected this one without torchrun" in capsys.readouterr().err
    assert main(["run", "quickstart", "--dry-run", "--out", str(tmp_path / "run")]) == 0
    with pytest.raises(InputError, match="torchrun has started several processes"):
        execute(config.Recipe(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
