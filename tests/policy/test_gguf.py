"""Conversions of GGUF files are kept by what the files hold, and read only where nobody else can have changed them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from reasonloop.policy import gguf


@pytest.fixture(autouse=True)
def conversions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was converted, in order; a conversion's weights say of what they are."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made: list[str] = []

    def convert(file: Path, folder: Path) -> None:
        made.append(file.read_text())
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_text(f"weights of {file.read_text()}")

    monkeypatch.setattr(gguf, "_convert", convert)
    return made


def model(folder: Path, content: str) -> Path:
    """Of one name, size and time, whatever it holds."""
    folder.mkdir(exist_ok=True)
    file = folder / "model.gguf"
    file.write_text(content)
    os.utime(file, (1_700_000_000, 1_700_000_000))
    return file


def weights(file: Path) -> str:
    return (gguf.converted(file) / "model.safetensors").read_text()


def test_two_files_alike_in_name_size_and_time_are_two_models(tmp_path: Path, conversions: list[str]) -> None:
    first, second = model(tmp_path / "a", "one"), model(tmp_path / "b", "two")
    assert [weights(first), weights(second), weights(first)] == ["weights of one", "weights of two", "weights of one"]
    assert conversions == ["one", "two"]
    model(tmp_path / "a", "two")  # the same path holds other bytes now
    assert weights(first) == "weights of two"
    assert weights(shutil.copy(first, tmp_path / "copied.gguf")) == "weights of two"
    assert conversions == ["one", "two"]


def test_other_versions_convert_anew(tmp_path: Path, conversions: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    file = model(tmp_path / "a", "one")
    weights(file)
    monkeypatch.setattr(gguf, "version", lambda package: "99")
    assert gguf.kept(file) is None
    weights(file)
    assert conversions == ["one", "one"]


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o077])
def test_what_is_kept_is_the_users_alone(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        found = gguf.converted(model(tmp_path / "a", "one"))
    finally:
        os.umask(before)
    assert all(path.stat().st_mode & 0o077 == 0 for path in (found, *found.iterdir()))
    assert gguf.kept(tmp_path / "a" / "model.gguf") == found


def _flip(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def _replace(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


TAMPERED = {
    "flipped": _flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:5]),
    "gone": lambda path: path.unlink(),
    "a link": lambda path: _replace(path, lambda there: there.symlink_to("/etc/hostname")),
    "a pipe": lambda path: _replace(path, os.mkfifo),
    "a folder": lambda path: _replace(path, Path.mkdir),
    "others' to write": lambda path: path.chmod(0o666),
    "its group's to write": lambda path: path.chmod(0o660),
    "one more": lambda path: (path.parent / "tokenizer.json").write_text("{}"),
    "its folder others' to write": lambda path: path.parent.chmod(0o777),
    "without digests": lambda path: (path.parent / gguf.MADE).unlink(),
    "digests that are a pipe": lambda path: _replace(path.parent / gguf.MADE, os.mkfifo),
    "digests that are no JSON": lambda path: (path.parent / gguf.MADE).write_text("?"),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_what_was_changed_since_is_made_anew(tmp_path: Path, conversions: list[str], how: str) -> None:
    file = model(tmp_path / "a", "one")
    TAMPERED[how](gguf.converted(file) / "model.safetensors")
    assert gguf.kept(file) is None
    assert weights(file) == "weights of one"
    assert conversions == ["one", "one"]
    assert gguf.kept(file) is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another's file")
def test_what_is_somebody_elses_is_made_anew(tmp_path: Path, conversions: list[str]) -> None:
    file = model(tmp_path / "a", "one")
    os.chown(gguf.converted(file) / "model.safetensors", 12345, -1)
    assert gguf.kept(file) is None
    assert weights(file) == "weights of one"
    assert conversions == ["one", "one"]


def homeless() -> Path:
    raise RuntimeError("Could not determine home directory.")


@pytest.mark.parametrize("cache", ["open", "open above", "a file", "unset"])
def test_without_a_cache_of_ones_own_it_is_kept_for_the_process(
    tmp_path: Path, conversions: list[str], cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "cache" / "reasonloop"
    own.mkdir(parents=True)
    if cache == "open":
        own.chmod(0o777)
    elif cache == "open above":
        own.parent.chmod(0o777)
    elif cache == "a file":
        own.rmdir()
        own.write_text("")
    else:
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", homeless)
    file = model(tmp_path / "a", cache)
    assert weights(file) == weights(file) == f"weights of {cache}"
    assert conversions == [cache]
    assert not own.is_dir() or not any(own.iterdir())
    assert not gguf.converted(file).is_relative_to(tmp_path / "cache")
