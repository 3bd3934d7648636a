"""A study: what is refused before anything runs, what its runs come to, and what is kept of them."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest
from run_fixtures import TASK, random_model, start

from reasonloop.cli import main
from reasonloop.study.archive import extract, finished
from reasonloop.study.definition import StudyFile

RECIPE = {
    "method": "rl",
    "checkpoint_seconds": 0,
    "model": {"path": ""},
    "task": TASK,
    "sampling": {"max_tokens": 14},
    "rl": {"steps": 30, "problems_per_step": 2, "group_size": 2, "refill_rounds": 0},
    "eval": {"samples": 2},
}


def written(folder: Path, arms: dict[str, list[str]], **more: object) -> Path:
    """A folder with a study of two seeds in it."""
    import tomli_w

    folder.mkdir(exist_ok=True)
    recipe = {**RECIPE, "model": {"path": str(random_model())}}
    (folder / "recipe.toml").write_text(tomli_w.dumps(recipe))
    study = {"recipe": "recipe.toml", "seeds": [0, 1], **more, "arms": arms}
    (folder / "study.toml").write_text(tomli_w.dumps(study))
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


class Forked:
    """A run's process, forked from one that has imported everything already; `interrupt`: plays Ctrl-C once it trains, and
    all others have begun."""

    interrupt = False
    runs: ClassVar[list[Path]] = []

    def __init__(self, argv: list[str], stdout: Any, **_: Any) -> None:
        self.run, self.process = Path(argv[-1]), start(argv[argv.index("run") :], log=Path(stdout.name))
        self.pid = self.process.pid
        self.runs.append(self.run)

    def poll(self) -> int | None:
        begun = all((run / "config.toml").is_file() for run in self.runs)
        if Forked.interrupt and begun and (self.run / "metrics.jsonl").is_file():
            Forked.interrupt = False
            os.kill(os.getpid(), signal.SIGINT)
        self.process.join(0)
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        assert self.pid is not None
        os.kill(self.pid, number)


def test_a_study_that_is_stopped_goes_on_with_the_same_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, runs = written(tmp_path / "lr", {"plain": [], "steep": ["rl.learning_rate=1e-3"]}), tmp_path / "runs"
    argv = ["study", str(folder), "--runs", str(runs), "--jobs", "2"]
    fresh = subprocess.Popen

    def popen(argv: list[str], **options: Any) -> Any:  # one of the runs is begun as all are outside of tests
        return (fresh if argv[-1].endswith("steep-1") else Forked)(argv, **options)

    monkeypatch.setattr("reasonloop.study.work.subprocess.Popen", popen)
    monkeypatch.setattr(Forked, "interrupt", True)
    monkeypatch.setattr(Forked, "runs", [])
    assert main(argv) == 1
    error = capsys.readouterr().err
    assert "stopping each run after its next checkpoint" in error
    assert error.splitlines()[-1] == f"reasonloop: stopped; the same command goes on with {folder / 'study.toml'}"
    begun = [run for run in runs.iterdir() if run.is_dir()]
    assert {run.name for run in begun} == {"plain-0", "plain-1"}
    assert not all(map(finished, begun))
    assert not (folder / "results.json").exists()

    assert main(argv) == 0
    told = capsys.readouterr()
    assert "seed 0: begun" in told.err
    assert re.search(r"(\d) of \1 runs", told.err)
    assert "steep" in told.out
    assert any("continuing" in run.with_name(f"{run.name}.log").read_text() for run in begun)
    made = json.loads((folder / "results.json").read_text())
    assert [made["arms"][name]["seeds"] for name in ("plain", "steep", "base")] == [[0, 1]] * 3
    assert (made["comparisons"][0]["a"], made["comparisons"][0]["b"]) == ("plain", "steep")
    assert (runs / "compare.html").is_file()
    assert {path.name for path in (folder / "finished").iterdir()} == {
        f"{arm}-{seed}.tar.gz" for arm in ("plain", "steep") for seed in (0, 1)
    }
    with tarfile.open(folder / "finished" / "plain-0.tar.gz") as tar:
        assert {Path(name).suffix for name in tar.getnames()} == {
            "",
            ".toml",
            ".json",
            ".jsonl",
        }  # no texts

    before = {path: path.stat().st_mtime_ns for path in runs.glob("*/**/*")}
    assert main(argv) == 0  # once more: nothing is left to do
    assert {path: path.stat().st_mtime_ns for path in runs.glob("*/**/*")} == before
    capsys.readouterr()
    assert main([*argv, "--dry-run"]) == 0
    assert capsys.readouterr().out.count("finished") == 4

    # Elsewhere the archives are enough to compare, and a run of which only they are left can be trained again.
    elsewhere = tmp_path / "elsewhere"
    (folder / "results.json").unlink()
    assert main(["study", str(folder / "study.toml"), "--runs", str(elsewhere), "--compare-only"]) == 0
    assert json.loads((folder / "results.json").read_text()) == made
    capsys.readouterr()
    again = ["study", str(folder), "--runs", str(elsewhere), "--train-again", "--dry-run", "--seeds", "1"]
    assert main(again) == 0
    assert capsys.readouterr().out.count("120  ") == 2  # rollouts of each of two runs, to do again


def test_a_dry_run_lists_what_is_to_do_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = written(tmp_path / "s", {"plain": [], "short": ["rl.updates_per_step=2"]}, threads=2)
    before = sorted(tmp_path.rglob("*"))
    assert main(["study", str(folder), "--dry-run", "--arms", "short", "--jobs", "3"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[:2] for line in out.splitlines()[2:4]] == [["short-0", "120"], ["short-1", "120"]]
    assert "to do: 240 training rollouts; 3 at a time, threads of a run: 2" in out
    assert out.split()[:3] == ["run", "rollouts", "state"]  # of time nothing is known
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arms", "more", "match"),
    [
        ({"a": ["rl.stepz=3"]}, {}, "arm 'a': .*recipe.toml: unknown key 'rl.stepz'; did you mean 'rl.steps'?"),
        ({"a": [], "b": ["method=rlop"]}, {}, "arm 'b': .*recipe.toml: method = 'rlop': unknown; did you mean 'rloop'?"),
        ({"a": [], "b": ["rl.steps"]}, {}, "arm 'b': override 'rl.steps': expected section.key=value"),
        ({"a": ["seed=3"]}, {}, "arm 'a': seed is the study's own"),
        ({"a": [], "b": ["rl.steps=31"]}, {}, "'a' and 'b' can't be compared: rollouts of a run = 120 and 124"),
        ({"a": [], "b": ["rl.learning_rate=1", "eval.samples=4"]}, {}, "can't be compared: eval.samples = 2 and 4"),
        ({"a": [], "b": ["sampling.temperature=0.5"]}, {}, "can't be compared: an evaluation's temperature = 1.0 and 0.5"),
        ({"a": [], "b": ["rl.probe_every=5"]}, {}, "arms 'a' and 'b' are the same recipe"),
        ({"a": [], "base": ["rl.learning_rate=1e-6"]}, {}, "arm 'base': what stands beside 'a' is called so"),
        ({"a=b": []}, {}, "arm 'a=b': expected a name of letters"),
        ({"a": ["model.path=nowhere"]}, {}, "arm 'a': .*nowhere"),
        ({}, {}, "arms: "),
        ({"a": []}, {"seed": [1]}, "unknown key 'seed'; did you mean 'seeds'?"),
        ({"a": []}, {"seeds": [1, 2, 1]}, "seeds: 1 stands there twice"),
        ({"a": []}, {"recipe": "recipes.toml"}, "recipes.toml: no such recipe file"),
        ({"alpha": []}, {"baseline": "alpa"}, "baseline = 'alpa': no arm of this name; did you mean 'alpha'?"),
        ({"a": []}, {"threads": 0}, "threads = 0"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arms: dict[str, list[str]], more: dict[str, object], match: str
) -> None:
    folder = written(tmp_path / "s", arms, **more)
    for options in ([], ["--dry-run"]):
        assert main(["study", str(folder), *options]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert str(folder / "study.toml") in error
        assert re.search(match, error)
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").rglob("config.toml"))
    assert not (folder / "results.json").exists()


def test_what_the_command_line_asks_for_must_be_in_the_study(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = written(tmp_path / "s", {"alpha": [], "beta": ["rl.learning_rate=1e-6"]})
    for options, match in (
        (["--arms", "alpa"], "--arms alpa: no such arm in .*study.toml; did you mean 'alpha'?"),
        (["--seeds", "7"], "--seeds 7: .*study.toml has the seeds 0, 1; add it there first"),
        (["--compare-only"], "no finished run of .*study.toml in it"),
    ):
        assert main(["study", str(folder), *options]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert re.search(match, error)
    assert main(["study", str(tmp_path / "nowhere.toml")]) == 2
    assert "no such study file" in capsys.readouterr().err


def test_a_run_that_another_recipe_made_is_not_taken_for_an_arm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = written(tmp_path / "s", {"plain": []})
    old = tmp_path / "runs" / "study-s" / "plain-0"
    assert main(["run", str(folder / "recipe.toml"), "threads=1", "rl.steps=1", "--out", str(old)]) == 0
    for stage in ("done", "main-explore-0"):
        (old / "state.json").write_text(json.dumps({"stage": stage}))
        capsys.readouterr()
        assert main(["study", str(folder)]) == 2
        error = capsys.readouterr().err
        assert "arm 'plain': " in error
        assert "rl.steps = 1 there, 30 here" in error
    shutil.rmtree(tmp_path / "runs")
    (folder / "finished").mkdir()
    (folder / "finished" / "plain-0.tar.gz").write_bytes(b"no archive")
    assert main(["study", str(folder)]) == 2
    assert "plain-0.tar.gz: cannot be unpacked" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "runs" / "study-s").iterdir()] == []


@pytest.mark.parametrize(("then", "now"), [([], ["rl.clip_high=0.9"]), (["task.max_target=50"], [])])
def test_an_option_that_was_unset_or_is_counts_as_another(tmp_path: Path, then: list[str], now: list[str]) -> None:
    from reasonloop import config
    from reasonloop.study.archive import another_recipe

    file = written(tmp_path / "s", {"plain": []}) / "recipe.toml"
    (tmp_path / "config.toml").write_text(config.dumps(config.load(file, then)))
    assert another_recipe(tmp_path, config.load(file, then)) is None
    assert "unset" in (another_recipe(tmp_path, config.load(file, now)) or "")


def test_the_page_s_study_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = Path(__file__).parents[2]
    page = (root / "docs" / "study.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "rates").mkdir()
    (tmp_path / "recipes").symlink_to(root / "recipes")
    file = tmp_path / "rates" / "study.toml"
    file.write_text(text)
    assert main(["study", "rates", "--dry-run"]) == 0
    assert "gentle-rft-3" in capsys.readouterr().out
    (told,) = re.findall(r"^    reasonloop: (rates/.*)$", page, re.MULTILINE)
    file.write_text(text.replace('gentle = ["rl.learning_rate', 'gentle = ["rl.learning_rat'))
    assert main(["study", "rates"]) == 2
    error = capsys.readouterr().err.removeprefix("reasonloop: ").strip()
    assert error.replace("rates/../recipes", "recipes") == told
    # every key and option of the command is there
    keys = set(StudyFile.model_fields)
    assert keys <= set(re.findall(r"^\| `\[?(\w+)\]?`", page, re.MULTILINE))
    with pytest.raises(SystemExit):
        main(["study", "--help"])
    assert set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"} <= set(re.findall(r"--[a-z-]+", page))


def test_the_page_s_numbers_are_those_of_the_committed_study() -> None:
    root = Path(__file__).parents[2]
    page = " ".join((root / "docs" / "study.md").read_text(encoding="utf-8").split())
    made = json.loads((root / "evidence" / "rloop-room" / "results.json").read_text())
    for row in made["comparisons"]:
        shown = {("rloop", "vanilla", "avg@32"), ("rloop-gentle-rft", "vanilla", "pass@32")}
        if (row["a"], row["b"], row["metric"]) in shown:
            lo, hi = row["ci95_absolute"]
            assert f"{row['absolute']:+.3f} [{lo:+.3f}, {hi:+.3f}]" in page


@pytest.mark.parametrize("old", [False, True], ids=["this Python", "a Python before 3.11.4"])
@pytest.mark.parametrize("name", ["../outside", "/outside", "link"])
def test_nothing_is_unpacked_outside(name: str, old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if old:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    member = tarfile.TarInfo(name)
    if name == "link":
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.addfile(member)
    packed.seek(0)
    (tmp_path / "in").mkdir()
    with tarfile.open(fileobj=packed) as tar, suppress(tarfile.TarError):
        extract(tar, tmp_path / "in")
    assert not (tmp_path / "outside").exists()
    assert not Path("/outside").exists()
    assert not any(path.is_symlink() for path in (tmp_path / "in").rglob("*"))


def test_an_archive_is_unpacked_by_an_older_python_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    (archive,) = (Path(__file__).parents[2] / "evidence" / "rloop-room" / "finished").glob("rloop-20.tar.gz")
    with tarfile.open(archive) as tar:
        extract(tar, tmp_path)
    assert (tmp_path / "rloop-20" / "config.toml").is_file()
