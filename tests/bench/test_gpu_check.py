"""benchmarks/gpu: that one part's end hides no other's, and what is read off the results."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "benchmarks/gpu"


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import check

    return check


def test_parts_end_as_they_do_and_at_their_limit(check: Any, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    made = [
        check.Part(
            "good",
            30,
            [sys.executable, "-c", f"open({str(result)!r}, 'w').write('{{\"lines\": [\"a\"]}}')"],
            (),
            str(result),
        ),
        check.Part("bad", 30, [sys.executable, "-c", "raise SystemExit(3)"]),
        check.Part("endless", 1, [sys.executable, "-c", child]),
        check.Part("lacking", 30, ["false"], ("no_such_module",)),
    ]
    began = time.monotonic()
    with (tmp_path / "log").open("w") as log:
        found = [check.run(part, 30, log) for part in made]
        late = check.run(made[0], 3, log)
    assert time.monotonic() - began < 30  # what an endless part has started ends with it
    assert [part["status"] for part in found] == ["passed", "failed", "timeout", "left out"]
    assert [part.get("exit_code") for part in found] == [0, 3, None, None]
    assert check.told(found[0])[1:] == ["    a"]
    assert "needs no_such_module" in check.told(found[3])[0]
    assert late["status"] == "timeout"


def test_all_parts_of_both_modes_are_there(check: Any, tmp_path: Path) -> None:
    """Scripts exist, names are told apart, and the whole fits into the deadline of nine minutes."""
    for gpu in (True, False):
        parts = check.parts(gpu, tmp_path)
        assert len({part.name for part in parts}) == len(parts)
        scripts = [word for part in parts for word in part.command if word.endswith(".py")]
        assert all((SCRIPTS.parents[1] / word).is_file() for word in scripts)
    assert check.DEADLINE < 540


def test_ours_stands_beside_the_bars_and_the_peers(check: Any) -> None:
    rows = [{"kind": "sft", "stream_tokens": 16384, "targets": 8192, "tokens_per_second": 1e4, "share_of_peak": 0.5}]
    sampled = [{"batch": 256, "tokens_per_second": 9e4, "share_of_bandwidth": 0.45}]
    result = {
        "machine": {"gpu": "NVIDIA H100 80GB HBM3"},
        "peak": {"flops": 7.9e14},
        "training": rows,
        "sampling": sampled,
    }
    first, second, third = check.told({"name": "bench", "status": "passed", "seconds": 3.2, "result": result})
    assert first == "passed    bench (3 s)"
    assert "90,000 tokens/s, 45% of the bandwidth limit (bar 40%); vLLM" in second
    assert "20,000 tokens/s, 50% of the matrix peak, 40% MFU by the data sheet (bar 40%); prime-rl 25,500" in third


def test_wheels_of_what_is_there_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from missing import missing

    wheels = ["w/pydantic_core-9.9-cp312-cp312-manylinux_2_17_x86_64.whl", "w/no_such_thing-1.0-py3-none-any.whl"]
    assert list(filter(missing, wheels)) == wheels[1:]
