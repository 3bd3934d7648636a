"""`reasonloop doctor`: what it recommends, that one broken part hides no other, and its exit codes."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reasonloop.bench import doctor
from reasonloop.bench.doctor import Check
from reasonloop.cli import main

SMALL = (4, 8, 8)


@given(st.dictionaries(st.integers(1, 64), st.lists(st.floats(1, 1e4), min_size=2, max_size=2), min_size=1))
def test_recommends_a_count_that_is_about_the_fastest(rates: dict[int, list[float]]) -> None:
    chosen = doctor.recommend(rates)
    means = {count: (a * b) ** 0.5 for count, (a, b) in rates.items()}
    assert means[chosen] >= 0.96 * max(means.values())
    assert all(count >= chosen or mean < 0.98 * max(means.values()) for count, mean in means.items())


def test_the_thread_check_leaves_the_setting_alone() -> None:
    before = torch.get_num_threads()
    check = doctor.threads(0.02, SMALL, SMALL, cores=2)
    assert torch.get_num_threads() == before
    assert check.data["recommended"] in (1, 2)
    assert set(check.data["gflops"]) == {"1", "2"}
    assert "threads = " in check.detail


@pytest.mark.parametrize("cores", [1, 3, 6])
def test_candidates_are_powers_of_two_and_all_cores(cores: int) -> None:
    tried = {int(count) for count in doctor.threads(0.01, SMALL, SMALL, cores=cores).data["gflops"]}
    assert tried == {1, cores} | {n for n in (2, 4) if n < cores}


def test_neighbours_are_seen_in_load_and_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.os, "getloadavg", lambda: (50.0, 0.0, 0.0))
    check = doctor.neighbours(0.01)
    assert check.status == "advice"
    assert check.data["p95_to_fastest"] >= 1


@pytest.mark.parametrize(
    ("text", "expected"), [("2.13.0+cpu", (2, 13, 0)), ("5.17", (5, 17)), ("2.11.0rc1", (2, 11, 0)), ("x", ())]
)
def test_versions_compare_by_their_numbers(text: str, expected: tuple[int, ...]) -> None:
    assert doctor._version(text) == expected


def test_old_and_absent_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [
        "torch>=99.1",
        "transformers>=5",
        "no-such-thing>=1",
        'ruff>=1; extra == "dev"',
        "math-verify[antlr]>=0.1",
    ]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: wanted)
    check = doctor.packages()
    assert check.status == "broken"
    assert "expected at least 99.1" in check.detail
    assert "no-such-thing is not installed" in check.detail
    assert "ruff" not in check.detail
    assert "transformers" not in check.detail
    assert set(check.data) == {"torch", "transformers", "math-verify"}


@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare to compare with")
def test_the_sandbox_check_agrees_with_unshare() -> None:
    check = doctor.sandbox()
    for name, flag in (("user", "-r"), ("mount", "-m"), ("net", "-n")):
        allowed = subprocess.run(["unshare", "-U", flag, "true"], capture_output=True).returncode == 0
        assert check.data[name] == allowed, name
    assert (check.status == "ok") == all(check.data.values())


def test_no_namespaces_is_missing_and_not_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_may_unshare", lambda flags: flags == doctor.NEW_USER)
    check = doctor.sandbox()
    assert check.status == "missing"
    assert "mount, pid, net" in check.detail


CHECKS = ["python", "packages", "torch_build", "cpu", "memory", "gpu", "threads", "neighbours", "disk", "limits"]
CHECKS += ["own_kernels", "sandbox", "bundled_model", "extras"]


def _fake(monkeypatch: pytest.MonkeyPatch, **other: object) -> None:
    """Every check says ok at once, but for those in `other`: a status, or an error to raise."""
    for name in CHECKS:

        def look(*args: object, name: str = name) -> Check:
            what = other.get(name, "ok")
            if isinstance(what, Exception):
                raise what
            return Check(name, what, f"about {name}")  # type: ignore[arg-type]

        monkeypatch.setattr(doctor, name, look)


def test_missing_and_advice_exit_with_0(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _fake(monkeypatch, gpu="missing", threads="advice")
    assert main(["doctor"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(CHECKS)


def test_a_broken_part_exits_with_1_and_hides_no_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _fake(monkeypatch, torch_build=ImportError("libtorch.so: no such file\nmore"), extras="missing")
    assert main(["doctor"]) == 1
    out, err = capsys.readouterr()
    assert "broken   torch          ImportError: libtorch.so: no such file\n" in out
    assert len(out.splitlines()) == len(CHECKS)
    assert err.startswith("reasonloop: broken: torch")


def test_json_is_one_object_also_when_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _fake(monkeypatch, bundled_model="broken")
    assert main(["doctor", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["healthy"] is False
    assert len(found["checks"]) == len(CHECKS)


def test_the_real_checks_pass_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "DECODE", SMALL)
    found = doctor.diagnose(seconds=0.05)
    by_name = {check["name"]: check for check in found["checks"]}
    assert found["healthy"], [check for check in found["checks"] if check["status"] == "broken"]
    assert by_name["bundled model"]["data"]["names"] == ["countdown"]
    assert by_name["memory"]["data"]["available_bytes"] > 0
    assert found["threads"] >= 1
    json.dumps(found)
