"""metrics.jsonl as trackers get it: names, axes, and every line once however the file comes to be."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from metrics_factory import line, make_run, short_run

from reasonloop.track.points import Point, Points


def points(folder: Path) -> Points:
    found = Points(folder / "metrics.jsonl")
    found.read()
    return found


def curve(found: Points, name: str) -> list[tuple[str, int, float]]:
    return [(one.axis, one.at, one.values[name]) for one in found.known.values() if name in one.values]


def test_a_run_is_drawn_against_what_it_spent(tmp_path: Path) -> None:
    found = points(make_run(tmp_path, short_run()))
    at = "rollouts"
    assert curve(found, "explore/reward") == [(at, 16, 0.0), (at, 32, 0.1), (at, 48, 1.0), (at, 64, 1.1)]
    assert curve(found, "explore/verdicts/wrong") == [(at, n, 13) for n in (16, 32, 48, 64)]
    assert curve(found, "explore/iteration") == [(at, 16, 0), (at, 32, 0), (at, 48, 1), (at, 64, 1)]
    # vanilla RL begins with the steps that it shares
    assert curve(found, "vanilla/reward") == [(at, 16, 0.0), (at, 32, 0.1), (at, 48, 0.5), (at, 64, 0.5)]
    assert curve(found, "probe/vanilla/avg@2") == [(at, 32, 0.25)]
    assert curve(found, "eval/avg@4") == [(at, 0, 0.1), (at, 32, 0.3), (at, 64, 1.3)]
    assert curve(found, "eval/explored/avg@4") == [(at, 32, 0.2), (at, 64, 0.2)]
    assert curve(found, "eval/vanilla/avg@4") == [(at, 64, 0.2)]
    assert curve(found, "product/avg@4") == [(at, 64, 1.3)]
    # supervised updates are counted through: two, then three
    assert [place for _, place, _ in curve(found, "rft/loss")] == [0, 1, 2, 3, 4]
    assert {axis for axis, _, _ in curve(found, "rft/loss")} == {"rft/update"}
    assert len(found.known) == len(short_run())
    assert not [name for one in found.known.values() for name in one.values if name.endswith(("/step", "/rollouts"))]


def test_only_numbers_are_values(tmp_path: Path) -> None:
    odd = {"note": "text", "flag": True, "list": [1], "deep": {"er": {"x": 2, "y": "z"}}}
    found = points(
        make_run(tmp_path, [line("explore", 0, rollouts=8, reward=1, **odd), line("explore", 1, note="none")])
    )
    told = {"explore/reward": 1, "explore/deep/er/x": 2}
    assert [*found.known.values()] == [Point("rollouts", 8, told)]


def test_timings_are_no_difference() -> None:
    first, second, other = (
        Point("rollouts", 8, {"explore/reward": reward, "explore/sampling_seconds": seconds})
        for reward, seconds in ((0.5, 1.0), (0.5, 2.0), (0.6, 1.0))
    )
    assert first.digest == second.digest != other.digest


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 4)),
        st.tuples(st.just("tear"), st.integers(1, 30)),
        st.tuples(st.just("take back"), st.integers(0, 12)),
        st.tuples(st.just("read"), st.just(0)),
    ),
    max_size=24,
)


@given(steps)
def test_what_is_known_is_what_the_file_holds(history: list[tuple[str, int]]) -> None:
    """Whatever was appended, torn, taken back and written again between two readings."""
    with tempfile.TemporaryDirectory() as folder:
        path, lines, tries = Path(folder) / "metrics.jsonl", [], 0
        followed = Points(path)
        for what, count in history:
            if what == "read":
                followed.read()
            elif what == "tear" and path.is_file():
                path.write_bytes(path.read_bytes()[:-count])
                tries += 1
                lines = [json.loads(text) for text in path.read_text().split("\n")[:-1]]
                _write_anew(path, lines)
            elif what == "take back":
                lines, tries = lines[:count], tries + 1
                _write_anew(path, lines)
            elif what == "add":
                for _ in range(count):
                    lines.append(line("explore", len(lines), rollouts=8 * len(lines), reward=0.5, seconds=tries))
                    with path.open("a") as file:
                        file.write(json.dumps(lines[-1]) + "\n")
        followed.read()
        fresh = Points(path)
        fresh.read()
        assert [*followed.known.items()] == [*fresh.known.items()]
        assert len(fresh.known) == len(lines)


def _write_anew(path: Path, lines: list[object]) -> None:
    new = path.with_suffix(".new")
    new.write_text("".join(json.dumps(one) + "\n" for one in lines))
    new.replace(path)
