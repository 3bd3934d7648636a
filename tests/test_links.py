"""Folders that somebody else has prepared: nothing is written through a link, and no pipe stops us."""

from __future__ import annotations

import ast
import os
import re
import stat
from pathlib import Path

import house
import pytest

from reasonloop.cli import main
from reasonloop.files import append, open_own, own_alone, user_cache, write_atomically
from reasonloop.runs import guard

ROOT = Path(__file__).parent.parent


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    file = tmp_path / "a file of the user's"
    file.write_text("precious")
    return file


NAMES = (".lock", ".config.toml.partial", "digests.jsonl", ".digests.jsonl.partial", "metrics.jsonl", "state.json")


@pytest.mark.parametrize("name", NAMES)
def test_a_run_folder_with_a_link_in_the_place_of_a_file_is_refused(
    tmp_path: Path, victim: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for target in (victim, tmp_path / "not there yet"):
        (run / name).symlink_to(target)
        assert main(["run", "quickstart", "--out", str(run), "rl.steps=1"]) == 2
        error = capsys.readouterr().err
        assert error == f"reasonloop: --out {run}: {name} in it is a link; expected a folder whose files are its own\n"
        assert [path.name for path in run.iterdir()] == [name]
        (run / name).unlink()
    os.mkfifo(run / name)
    assert main(["run", "quickstart", "--out", str(run), "rl.steps=1"]) == 2
    assert f"{name} in it is a pipe" in capsys.readouterr().err
    assert victim.read_text() == "precious"
    assert not (tmp_path / "not there yet").exists()


@pytest.mark.parametrize("several", [False, True])
def test_what_stands_where_a_file_is_made_is_not_followed(tmp_path: Path, victim: Path, several: bool) -> None:
    partial = f".there.json.{os.getpid()}.partial" if several else ".there.json.partial"
    for make in (lambda at: at.symlink_to(victim), lambda at: os.link(victim, at), os.mkfifo):
        make(tmp_path / partial)
        write_atomically(tmp_path / "there.json", "new", several=several)
        assert (tmp_path / "there.json").read_text() == "new"
        assert not os.path.lexists(tmp_path / partial)
        assert victim.read_text() == "precious"
    (tmp_path / "linked.json").symlink_to(victim)
    write_atomically(tmp_path / "linked.json", "new")
    assert not (tmp_path / "linked.json").is_symlink()
    assert victim.read_text() == "precious"


def test_what_lines_are_added_to_is_no_link_and_no_pipe(tmp_path: Path, victim: Path) -> None:
    link, pipe, folder = tmp_path / "link", tmp_path / "pipe", tmp_path / "folder"
    link.symlink_to(victim)
    os.mkfifo(pipe)
    folder.mkdir()
    for path in (link, pipe, folder, Path("/dev/null")):
        with pytest.raises(OSError, match=r"expected|directory"):
            append(path, "more\n")
        for flags in (os.O_RDWR, os.O_WRONLY | os.O_APPEND):
            with pytest.raises(OSError, match=r"expected|directory"):
                open_own(path, flags)
    assert victim.read_text() == "precious"
    append(victim, " still\n")
    assert victim.read_text() == "precious still\n"


def test_the_guard_of_a_command_follows_no_link_either(tmp_path: Path, victim: Path) -> None:
    (tmp_path / ".done.partial").symlink_to(victim)
    guard.write(tmp_path / "done", "{}")
    assert (tmp_path / "done").read_text() == "{}"
    assert victim.read_text() == "precious"
    (tmp_path / "tries.jsonl").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        guard.opened(tmp_path / "tries.jsonl", os.O_APPEND)


def _follows(node: ast.AST) -> bool:
    """Whether it opens a file to write in a way that would follow a link."""
    if not isinstance(node, ast.Call) or ast.unparse(node.func).split(".")[-1] != "open":
        return False
    if any(word.arg == "opener" and ast.unparse(word.value) == "open_own" for word in node.keywords):
        return False
    if ast.unparse(node.func) == "os.open":
        return not {"O_NOFOLLOW", "O_RDONLY"} & set(re.findall(r"O_\w+", ast.unparse(node)))
    words = [*node.args, *(word.value for word in node.keywords)]
    modes = [one.value for one in words if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    writes = any(re.fullmatch("[rwaxbt+]+", mode) and set(mode) & set("wax+") for mode in modes)
    return writes and ast.unparse(node.func) != "tarfile.open"


def test_nothing_is_opened_to_write_but_by_what_follows_no_link() -> None:
    """In the rooms that work in run folders and caches. Files of a folder that was made a moment ago, and is renamed when it
    is whole, are nobody else's: those are written with `write_text` and by libraries."""
    rooms = ("runs", "stages", "store", "track", "study", "written", "kernels", "evaluation", "files")
    # devices, memory, temporary folders of their own
    own = {"runs/progress.py", "kernels/build.py", "stages/packed.py", "stages/remote.py"}
    found = []
    for module, path in house.modules(house.ROOT).items():
        name = path.relative_to(ROOT / "reasonloop").as_posix()
        if house.room(module) in rooms and name not in own:
            found += [f"{name}:{node.lineno}" for node in ast.walk(house.tree(path)) if _follows(node)]
    assert found == []


def test_a_cache_that_others_can_write_to_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a" / "b"))
    before = os.umask(0)
    try:
        folder = user_cache()
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for mode, good in ((0o755, True), (0o770, False), (0o707, False), (0o700, True)):
        folder.chmod(mode)
        if good:
            assert user_cache() == folder
        else:
            with pytest.raises(OSError, match="others can write there"):
                user_cache()
    for mode, good in ((0o777, False), (0o1777, True), (0o755, True)):
        folder.parent.chmod(mode)
        if good:
            assert user_cache() == folder
        else:
            with pytest.raises(OSError, match="others can write there"):
                user_cache()
    (folder / "pipe").touch()
    assert own_alone(folder / "pipe", stat.S_ISREG)
    (folder / "pipe").unlink()
    os.mkfifo(folder / "pipe")
    assert not own_alone(folder / "pipe", stat.S_ISREG)
    elsewhere = folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(elsewhere)  # one's own link, to where there is room
    assert user_cache() == folder
    if os.geteuid() == 0:
        os.lchown(folder, 12345, -1)
        with pytest.raises(OSError, match="others can write there"):
            user_cache()


@pytest.mark.parametrize("name", ["trajectories/main-i000-s00000.parquet", "evals/base.json", "state.json"])
def test_a_pipe_in_a_run_folder_is_not_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    run = tmp_path / "run"
    for folder in ("trajectories", "evals"):
        (run / folder).mkdir(parents=True)
    (run / "config.toml").touch()
    os.mkfifo(run / name)
    code = main(["query", str(run), "SELECT count(*) FROM rollouts"])
    assert code == (0 if name == "state.json" else 1 if "parquet" in name else 2)
    error = capsys.readouterr().err
    assert (str(run / name) in error, len(error.splitlines())) == ((False, 0) if code == 0 else (True, 1))
