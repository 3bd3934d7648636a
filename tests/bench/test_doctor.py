"""`reasonloop doctor`: that one broken part hides no other, its exit codes, and that it tells what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reasonloop.bench import doctor
from reasonloop.bench.doctor import CHECKS, Check
from reasonloop.cli import main
from reasonloop.errors import InputError
from reasonloop.machine import room
from reasonloop.verify.sandbox import sandbox


@pytest.mark.parametrize(
    ("text", "expected"), [("2.13.0+cpu", [2, 13, 0]), ("5.17", [5, 17]), ("2.11.0rc1", [2, 11, 0]), ("x", [])]
)
def test_versions_compare_by_their_numbers(text: str, expected: list[int]) -> None:
    assert doctor.numbers(text) == expected


def test_old_and_absent_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [
        "torch>=99.1",
        "transformers<9,>=5",
        "no-such-thing>=1",
        'ruff>=1; extra == "dev"',
        "math-verify[antlr]>=0.1",
    ]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: wanted)
    check = doctor.versions()
    assert check.status == "broken"
    assert "expected at least 99.1: pip install 'torch>=99.1'" in check.detail
    assert "no-such-thing is not installed: pip install 'no-such-thing>=1'" in check.detail
    assert "ruff" not in check.detail
    assert "transformers" not in check.detail
    assert set(check.data) == {"python", "reasonloop", "torch", "transformers", "math-verify"}


@pytest.mark.parametrize(
    ("files", "cpu", "memory"),
    [
        ({}, "ok", "ok"),
        ({"cpu.max": "max 100000", "memory.max": "max", "memory.current": "5"}, "ok", "ok"),
        # what files take of a container's memory is given up when it is asked for
        (
            {
                "cpu.max": "50000 100000",
                "memory.max": str(1 << 30),
                "memory.current": "105",
                "memory.stat": "anon 5\ninactive_file 100",
            },
            *("advice", "advice"),
        ),
    ],
)
def test_a_containers_limits_count(
    files: dict[str, str], cpu: str, memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content + "\n")
    monkeypatch.setattr(room, "CGROUP", tmp_path)
    monkeypatch.setattr(doctor, "LEAST_MEMORY", 1 << 30)
    assert doctor.cpu().status == cpu
    found = doctor.memory()
    assert found.status == memory
    assert found.data["available_bytes"] <= found.data["total_bytes"]
    assert (found.data["available_bytes"] == (1 << 30) - 5) == (memory == "advice")


@pytest.mark.parametrize(("machine", "status"), [("x86_64", "advice"), ("aarch64", "ok"), ("arm64", "ok")])
def test_vectors_without_a_name_are_slow_on_x86_alone(
    machine: str, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "CGROUP", tmp_path)
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "DEFAULT")
    monkeypatch.setattr(doctor.platform, "machine", lambda: machine)
    assert doctor.cpu().status == status


def test_no_sandbox_is_missing_and_not_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object) -> None:
        raise InputError("no net namespace")

    monkeypatch.setattr(sandbox.Sandbox, "start", refuse)
    sandbox.require_sandbox.cache_clear()
    check = doctor.sandbox()
    assert check.status == "missing"
    assert "no net namespace" in check.detail


def test_what_is_missing_is_told_with_where_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor.EXTRAS, "no_such_thing", "for nothing: pip install no-such-thing")
    check = doctor.extras()
    assert check.status == "missing"
    assert "no_such_thing (for nothing: pip install no-such-thing)" in check.detail
    assert check.data["no_such_thing"] is False


def _fake(monkeypatch: pytest.MonkeyPatch, **other: object) -> None:
    """Every check says ok at once, but for those in `other`: a status, or an error to raise."""
    for name in CHECKS:

        def look(name: str = name) -> Check:
            what = other.get(name, "ok")
            if isinstance(what, Exception):
                raise what
            return Check(what, f"about {name}")  # type: ignore[arg-type]

        monkeypatch.setitem(CHECKS, name, look)


def test_missing_and_advice_exit_with_0(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _fake(monkeypatch, gpu="missing", memory="advice")
    assert main(["doctor"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(CHECKS)


def test_a_broken_part_exits_with_1_and_hides_no_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _fake(monkeypatch, cpu=ImportError("libtorch.so: no such file\nmore"), extras="missing")
    assert main(["doctor"]) == 1
    out, err = capsys.readouterr()
    assert "broken   cpu            ImportError: libtorch.so: no such file\n" in out
    assert len(out.splitlines()) == len(CHECKS)
    assert err.startswith("reasonloop: broken: cpu")


def test_json_is_one_object_also_when_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _fake(monkeypatch, versions="broken")
    assert main(["doctor", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["healthy"] is False
    assert len(found["checks"]) == len(CHECKS)


def test_the_real_checks_pass_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    by_name = {check["name"]: check for check in found["checks"]}
    assert found["healthy"]
    assert by_name["bundled model"]["data"]["names"] == ["countdown"]
    assert by_name["memory"]["data"]["available_bytes"] > 0
