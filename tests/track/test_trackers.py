"""The real trackers, without a network: what they hold, read back, is the run's metrics, each line once.

TensorBoard's is part of the plain suite; wandb and trackio are where `make test-trackers` has them."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from metrics_factory import make_run, short_run, write
from wandb_server import WandbServer

from reasonloop.cli import main
from reasonloop.config import Track
from reasonloop.errors import InputError
from reasonloop.track import Followers, check_trackers, registry
from reasonloop.track.points import Points

LINES = short_run()
Held = list[tuple[str, int, dict[str, float]]]
Reader = Callable[[Path], Held]


def expected(run: Path) -> Held:
    known = Points(run / "metrics.jsonl")
    known.read()
    return [(one.axis, one.at, dict(one.values)) for one in known.known.values()]


def rows_as_held(rows: list[dict[str, Any]]) -> Held:
    found = []
    for row in rows:
        values = {key: value for key, value in row.items() if not key.startswith("_")}
        axis = next(name for name in values if name == "rollouts" or name.endswith("/update"))
        found.append((axis, values.pop(axis), values))
    return found


def tensorboard(run: Path) -> Held:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    (file,) = (run / "tensorboard").glob("events.*")
    found = []
    for event in EventFileLoader(str(file)).Load():
        values = {one.tag: one.tensor.float_val[0] for one in event.summary.value if one.tensor.float_val}
        if values:
            axis = "rft/update" if "rft/loss" in values else "rollouts"
            found.append((axis, event.step, values))
    return found


def trackio(run: Path) -> Held:
    (file,) = Path(os.environ["TRACKIO_DIR"]).glob("*.db")
    with sqlite3.connect(file) as database:
        rows = database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY step, id").fetchall()
    assert {name for name, _, _ in rows} == {f"{run.name}-{kept(run, 'trackio')['id'][:4]}"}
    assert [step for _, step, _ in rows] == [*range(len(rows))]
    return rows_as_held([json.loads(metrics) for _, _, metrics in rows])


def wandb_offline(run: Path) -> Held:
    """From the file that `wandb sync` sends: a LevelDB log of protocol buffers."""
    from wandb.proto import wandb_internal_pb2

    (file,) = run.glob("wandb/offline-run-*/*.wandb")
    data, at, record, rows = file.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        part, at = data[at + 7 : at + 7 + length], at + 7 + length
        record = part if kind in (1, 2) else record + part
        if kind in (1, 4):
            read = wandb_internal_pb2.Record()
            read.ParseFromString(record)
            if read.WhichOneof("record_type") == "history":
                rows.append({item.key or item.nested_key[0]: json.loads(item.value_json) for item in read.history.item})
    assert [row["_step"] for row in rows] == [*range(len(rows))]
    return rows_as_held(rows)


def kept(run: Path, tracker: str) -> dict[str, Any]:
    return dict(json.loads((run / "track" / f"{tracker}.json").read_text()))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """Plays wandb's, and is what wandb's client is set up for."""
    pytest.importorskip("wandb")
    for variable in [key for key in os.environ if key.startswith("WANDB_")]:
        monkeypatch.delenv(variable)
    with WandbServer() as made:
        monkeypatch.setenv("WANDB_BASE_URL", made.url)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


@pytest.fixture(params=["tensorboard", "trackio", "wandb offline", "wandb"])
def tracker(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Reader]:
    name = str(request.param).partition(" ")[0]
    pytest.importorskip(name)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    for variable in [key for key in os.environ if key.startswith("WANDB_")]:
        monkeypatch.delenv(variable)
    if request.param == "wandb":
        server = request.getfixturevalue("server")
        return name, lambda run: rows_as_held(server.rows(kept(run, "wandb")["id"]))
    monkeypatch.setenv("WANDB_MODE", "offline")
    return name, {"tensorboard": tensorboard, "trackio": trackio, "wandb": wandb_offline}[name]


def assert_same(found: Held, there: Held) -> None:
    assert [(axis, at) for axis, at, _ in found] == [(axis, at) for axis, at, _ in there]
    for (_, _, values), (_, _, wanted) in zip(found, there, strict=True):
        assert values == pytest.approx(wanted)


def test_a_run_is_there_whole_and_only_once(tracker: tuple[str, Reader], tmp_path: Path, capfd: Any) -> None:
    """Sent while it goes on, and once more when it is done; nothing is left in the current folder, nothing printed but
    where it is."""
    name, read = tracker
    run = make_run(tmp_path / "run", LINES[:12], stage="main-explore-1")
    assert main(["track", str(run), "--to", name, "--project", "mine"]) == 0
    assert_same(read(run), expected(run))
    make_run(run, LINES)
    assert main(["track", str(run), "--to", name]) == 0
    assert_same(read(run), expected(run))
    assert len(expected(run)) == len(LINES)
    told = kept(run, name)
    assert (told["project"], told["sent"], told["finished"]) == ("mine", len(LINES), True)
    assert [*(tmp_path / "here").iterdir()] == []
    out, said = capfd.readouterr()
    assert out == ""
    assert {line.partition(": ")[0] for line in said.splitlines()} <= {
        f"tracked by {name}",
        f"sending the last of it to {name}",
    }


def test_killed_at_any_moment_and_continued(tracker: tuple[str, Reader], tmp_path: Path) -> None:
    """The follower, by SIGKILL, while the run writes, and takes back what it did behind its last checkpoint."""
    name, read = tracker
    random, written, times, seconds = Random(name), 4, *((1, 1.0) if name == "tensorboard" else (3, 4.0))
    run = make_run(tmp_path / "run", [], stage="main-explore-0")
    for _ in range(times):
        said: list[str] = []
        written = max(0, written - 2)
        write(run, LINES[:written])
        with Followers(run, Track(to=(name,)), said.append) as following:
            while not said:
                time.sleep(0.02)
            until = time.monotonic() + random.uniform(0.0, seconds)
            while time.monotonic() < until:
                written = min(written + 1, len(LINES) - 1)
                write(run, LINES[:written])
                time.sleep(0.3)
            for process in following._processes.values():
                os.kill(process.pid, signal.SIGKILL)
        assert following.failed == [name]
    assert kept(run, name)["sent"] > 0
    make_run(run, LINES)
    with Followers(run, Track(to=(name,)), print) as following:
        pass
    assert not following.failed
    assert_same(read(run), expected(run))


def test_wandb_takes_the_recipe_and_the_end(server: WandbServer, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", LINES[:9], stage="main-explore-1")
    for stage, lines in (("main-explore-1", LINES[:9]), ("done", LINES)):
        make_run(run, lines, stage)
        assert main(["track", str(run), "--to", "wandb"]) == 0
    name = kept(run, "wandb")["id"]
    assert server.exits[name] == [1, 0]  # of a run that isn't done, and of one that is
    config = json.loads(server.config[name])
    assert config["rl"]["value"] == {"steps": 2}
    metrics = config["_wandb"]["value"][
        "m"
    ]  # "1" a name, "2" a pattern, "5" which of them it is drawn against, from 1 on
    drawn = {one["2"]: metrics[one["5"] - 1]["1"] for one in metrics if "2" in one}
    by_rollouts = ("explore/*", "vanilla/*", "probe/*", "eval/*", "product/*")
    assert drawn == dict.fromkeys(by_rollouts, "rollouts") | {"rft/*": "rft/update"}


def test_an_offline_run_is_synced_by_wandb_itself(
    server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what was synced before the run went on; later it may be sent by us as well."""
    run = make_run(tmp_path / "run", [], stage="main-explore-1")
    for lines in (LINES[:9], LINES):
        make_run(run, lines)
        monkeypatch.setenv("WANDB_MODE", "offline")
        assert main(["track", str(run), "--to", "wandb"]) == 0
        monkeypatch.delenv("WANDB_MODE")
        (folder,) = run.glob("wandb/offline-run-*")
        command = [sys.executable, "-m", "wandb", "sync", str(folder)]
        subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)  # where it leaves logs of its own
        name = kept(run, "wandb")["id"]
        assert_same(rows_as_held(server.rows(name)), expected(run))
    assert main(["track", str(run), "--to", "wandb"]) == 0
    assert_same(rows_as_held(server.rows(name)), expected(run))


def test_wandb_s_server_is_down_for_a_while(
    server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run's end doesn't wait for it for long, and what it lacks comes later, once."""
    run, said = make_run(tmp_path / "run", LINES[:9], stage="main-explore-1"), list[str]()
    with Followers(run, Track(to=("wandb",)), said.append, seconds=3.0) as following:
        while not said:
            time.sleep(0.05)
        server.down = True
        write(run, LINES[:12])
        time.sleep(3.0)
        make_run(run, LINES)
    assert following.failed == ["wandb"]
    assert "wandb is not ready after 3 s and is left" in said[-1]
    server.down = False
    assert main(["track", str(run), "--to", "wandb"]) == 0
    assert_same(rows_as_held(server.rows(kept(run, "wandb")["id"])), expected(run))


def test_wandb_without_a_key_is_said_in_one_line(
    server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    run = make_run(tmp_path / "run", LINES)
    assert main(["track", str(run), "--to", "wandb"]) == 1
    said = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("sending")]
    assert said[0].startswith("wandb lacks 19 of 19 lines (")
    assert said[1:] == ["reasonloop: not everything was sent to wandb"]


def test_a_missing_package_is_told_before_there_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    assert main(["run", "quickstart", "track.to=trackio", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == (
        "reasonloop: track.to = 'trackio': it needs the package trackio; expected it after: "
        'pip install "reasonloop[trackio]"\n'
    )
    assert not (tmp_path / "out").exists()


def test_a_folder_of_its_name_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """wandb leaves one called wandb wherever it is used."""
    (tmp_path / "made_up_tracker").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(registry.OURS, "made_up_tracker", "x:y")
    with pytest.raises(InputError, match="it needs the package made_up_tracker"):
        check_trackers(["made_up_tracker"])
