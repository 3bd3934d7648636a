"""A tracked run is the run that it is without: same bytes, same signals, and no tracker can hold it up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from metrics_factory import make_run, short_run, write
from own_trackers import got
from run_fixtures import outcome, small_recipe, temporary

from reasonloop import config
from reasonloop.cli import main
from reasonloop.config import Recipe, Track
from reasonloop.errors import InputError
from reasonloop.runs.folder import check_folder
from reasonloop.study.archive import another_recipe
from reasonloop.track import Followers
from reasonloop.track.points import Points

TRACKERS = '["own_trackers:Ledger", "own_trackers:Down"]'
BESIDE = ("track", "tensorboard")
"""What trackers leave in a run folder"""


@pytest.fixture(autouse=True)
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRACKED", str(tmp_path / "ledger"))
    return tmp_path / "ledger"


def known(run: Path) -> list[Any]:
    found = Points(run / "metrics.jsonl")
    found.read()
    return [*found.known.values()]


def argv(out: Path, *more: str) -> list[str]:
    return [
        "run",
        str(small_recipe(temporary())),
        "method=rl",
        "rl.steps=6",
        "eval.samples=2",
        *more,
        "--out",
        str(out),
    ]


@pytest.fixture(scope="module")
def untracked() -> dict[str, Any]:
    """What the run comes to without trackers."""
    assert main(argv(temporary() / "untracked" / "run")) == 0
    return outcome(temporary() / "untracked" / "run")


def results(out: Path) -> dict[str, Any]:
    return {name: value for name, value in outcome(out).items() if name.split("/")[0] not in BESIDE}


def test_a_tracked_run_ends_with_the_same_bytes(
    untracked: dict[str, Any], tmp_path: Path, ledger: Path, capfd: Any
) -> None:
    pytest.importorskip("tensorboard")
    tracked = tmp_path / "tracked" / "run"
    assert main(argv(tracked, f"track.to={TRACKERS[:-1]}, 'tensorboard']")) == 0
    assert results(tracked) == untracked
    assert [point for _, point in got(ledger)] == known(tracked)
    said = capfd.readouterr().err.splitlines()
    assert "tracked by own_trackers:Ledger: a file" in said
    assert f"tracked by tensorboard: tensorboard --logdir {tracked.parent}" in said
    assert sum("own_trackers:Down: no route to host; the run goes on" in line for line in said) <= 1
    assert sum("own_trackers:Down lacks" in line for line in said) == 1
    assert len([*(tracked / "tensorboard").iterdir()]) == 1


def test_a_stopped_run_may_go_on_with_trackers(
    untracked: dict[str, Any], tmp_path: Path, ledger: Path, capfd: Any
) -> None:
    """Ctrl-C stops behind a checkpoint, and the tracker has what there is by then; it had none when the run began."""
    out = tmp_path / "stopped" / "run"
    for more in ([], [f"track.to={TRACKERS}"]):
        stop_at = threading.Thread(target=_stop, args=(out / "metrics.jsonl", len(known(out)) + 2))
        stop_at.start()
        assert main(argv(out, *more)) == 1
        stop_at.join()
        assert capfd.readouterr().err.splitlines()[-1].startswith("reasonloop: stopped; the same command goes on")
        assert len(got(ledger)) == (len(known(out)) if more else 0)
    assert main(argv(out, "track.to=own_trackers:Ledger", "track.name=another")) == 0
    assert results(out) == untracked
    assert [point.digest for _, point in got(ledger)] == [point.digest for point in known(out)]
    assert ledger.with_suffix(".finished").read_text().splitlines() == ["False", "True"]
    assert main(argv(out, "track.to=own_trackers:Ledger")) == 0  # nothing is left to do, nor to send
    assert len(got(ledger)) == len(known(out))
    assert ledger.with_suffix(".finished").read_text().count("\n") == 2


def _stop(metrics: Path, lines: int) -> None:
    while not metrics.is_file() or metrics.read_text().count("\n") < lines:
        time.sleep(0.002)
    os.kill(os.getpid(), signal.SIGINT)


def test_a_tracker_that_hangs_is_left(tmp_path: Path) -> None:
    run, said = make_run(tmp_path / "run", short_run()), list[str]()
    with Followers(run, Track(to=("own_trackers:Hangs",)), said.append, seconds=1.0) as following:
        pass
    assert following.failed == ["own_trackers:Hangs"]
    assert said[-1] == (
        "own_trackers:Hangs is not ready after 1 s and is left; it gets the rest with: "
        f"reasonloop track {run} --to own_trackers:Hangs"
    )


def test_what_a_killed_run_has_written_down_is_sent(tmp_path: Path, ledger: Path) -> None:
    """By SIGKILL its process can't tell anybody; the follower sees that it is gone, and the next one takes over."""
    run = make_run(tmp_path / "run", short_run()[:6], stage="main-explore-0")
    code = (
        "import time; from pathlib import Path\n"
        "from reasonloop.config import Track; from reasonloop.track import Followers\n"
        f"with Followers(Path({str(run)!r}), Track(to=('own_trackers:Ledger',)), lambda line: print(line, flush=True)):\n"
        "    time.sleep(600)"
    )
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path}
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "tracked by own_trackers:Ledger: a file\n"
    process.kill()
    write(run, short_run()[:9])
    process.wait()
    make_run(run, short_run())
    with Followers(run, Track(to=("own_trackers:Ledger",)), print) as following:
        pass
    assert not following.failed
    assert [point for _, point in got(ledger)] == known(run)
    assert ledger.with_suffix(".finished").read_text().endswith("True\n")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["track.to=tensorbord"], "track.to = 'tensorbord': did you mean 'tensorboard'?"),
        (['track.to=["tensorboard", "x"]'], "'x': known: wandb, trackio, tensorboard; or one of your own"),
        (["track.to=own_trackers:Lacking"], "track.to = 'own_trackers:Lacking': has no log; expected a tracker"),
        (["track.to=own_trackers:Nobody"], "module 'own_trackers' has no 'Nobody'"),
        (["track.too=wandb"], "unknown key 'track.too'; did you mean 'track.to'?"),
    ],
)
def test_bad_input_is_one_line_and_no_folder(given: list[str], told: str, tmp_path: Path, capsys: Any) -> None:
    assert main(argv(tmp_path / "run", *given)) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_trackers_make_no_other_recipe(tmp_path: Path) -> None:
    """Neither for a run that goes on, nor for a study that has the run."""
    (tmp_path / "config.toml").write_text(config.dumps(Recipe()))
    tracked = Recipe(track=Track(to=("wandb",), project="p", name="n"))
    check_folder(tracked, tmp_path)
    assert another_recipe(tmp_path, tracked) is None
    other = Recipe(seed=1, track=tracked.track)
    with pytest.raises(InputError, match="seed = 0 there, 1 here"):
        check_folder(other, tmp_path)
    assert another_recipe(tmp_path, other) == "seed = 0 there, 1 here"


def test_track_needs_a_run_and_a_tracker(tmp_path: Path, capsys: Any) -> None:
    assert main(["track", str(tmp_path / "nothing"), "--to", "tensorboard"]) == 2
    assert "no run folder" in capsys.readouterr().err
    run = make_run(tmp_path / "run", short_run())
    assert main(["track", str(run)]) == 2
    assert "the run's recipe names no tracker" in capsys.readouterr().err
    assert main(["track", str(run), "--to", "wandbb"]) == 2
    assert "did you mean 'wandb'?" in capsys.readouterr().err
    assert {path.name for path in run.iterdir()} == {"config.toml", "state.json", "metrics.jsonl"}
    (run / "track").write_text("")
    assert main(["track", str(run), "--to", "tensorboard"]) == 2
    assert f"{run}/track: a file; expected a folder" in capsys.readouterr().err


def test_track_follows_a_run_that_goes_on(tmp_path: Path, ledger: Path) -> None:
    run = make_run(tmp_path / "run", short_run()[:6], stage="main-explore-0")
    with (run / "config.toml").open("a") as file:
        file.write('[track]\nto = ["own_trackers:Ledger"]\nname = "mine"\n')

    def finish() -> None:
        while not ledger.is_file():
            time.sleep(0.01)
        make_run(run, short_run())

    ending = threading.Thread(target=finish)
    with (run / "config.toml").open() as file:
        config = file.read()
    ending.start()
    assert main(["track", str(run), "--follow"]) == 0
    ending.join()
    (run / "config.toml").write_text(config)
    assert [point for _, point in got(ledger)] == known(run)
