"""Where rows come from: a file, a folder of files, a folder of `datasets.save_to_disk`, or a data set of the hub."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from reasonloop.errors import InputError
from reasonloop.files import read_object
from reasonloop.tasks.files.formats import READERS, ending, rows_of_file
from reasonloop.tasks.files.hub import NAME, hub_rows, load
from reasonloop.tasks.files.raw import RawRow

_SHARD = re.compile(r"-\d{5}-of-\d{5}.*")
_ABOUT = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json")
"""Files that describe a data set"""


@dataclass(frozen=True, slots=True)
class Source:
    """Rows that can be read, one at a time."""

    name: str
    """As messages and reports call it"""
    stem: str
    """What the ids of its problems begin with"""
    rows: Callable[[], Iterator[RawRow]]


def is_source(text: str) -> bool:
    """Whether it names a file, a folder or a data set rather than a task."""
    if ending(text) or "/" in text or text.startswith("hf:"):
        return True
    return Path(text).expanduser().exists() or Path(text.rpartition("@")[0] or text).expanduser().is_dir()


def locate(text: str, split: str) -> Source:
    """The source that the user named: a path, `FOLDER@SPLIT`, or `hf:owner/name:config@split`.

    `split` is the one to take where several are there and none was named. Raises InputError for what isn't there.
    """
    try:
        return _located(text, split)
    except OSError as error:
        raise InputError(f"{text}: cannot be read ({error.strerror}); expected a file or folder of problems") from None


def _located(text: str, split: str) -> Source:
    path = Path(text).expanduser()
    if path.is_dir():
        return _folder(path, split)
    if path.exists():
        return _of_files(str(path), path.stem, [path])
    folder, _, named = text.rpartition("@")
    if folder and Path(folder).expanduser().is_dir():
        return _folder(Path(folder).expanduser(), named, named=True)
    match = NAME.fullmatch(text)
    if match and (match["hf"] or ("/" in match["name"] and not ending(text))):
        return _hub(match, split)
    raise InputError(f"{path}: there is no such file; expected a file or folder of problems")


def _of_files(name: str, stem: str, files: Iterable[Path]) -> Source:
    return Source(name, stem, lambda: chain.from_iterable(map(rows_of_file, files)))


def _folder(path: Path, split: str, named: bool = False) -> Source:
    if (path / "state.json").is_file():
        return _saved(path, path.resolve().name)
    if (path / "dataset_dict.json").is_file():
        splits = {str(name): path / str(name) for name in read_object(path / "dataset_dict.json").get("splits", ())}
        chosen = _chosen(str(path), splits, split, named)
        return _saved(splits[chosen], f"{path.resolve().name}-{chosen}")
    for folder in (path, path / "data"):
        groups = _groups(folder)
        if groups:
            chosen = _chosen(str(path), groups, split, named)
            return _of_files(f"{path}@{chosen}", f"{path.resolve().name}-{chosen}", groups[chosen])
    inside = sorted(inner.name for inner in path.iterdir() if _holds_problems(inner))
    hint = f"expected {', '.join(READERS)}, or a folder of `datasets.save_to_disk`"
    if inside:
        hint = f"name one of the folders in it: {', '.join(inside)}"
    raise InputError(f"{path}: a folder without files of problems; {hint}")


def _holds_problems(folder: Path) -> bool:
    saved = any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))
    return saved or bool(_groups(folder) or _groups(folder / "data"))


def _groups(folder: Path) -> dict[str, list[Path]]:
    """The files of a folder by split: `train-00000-of-00002.parquet` is a part of `train`."""
    groups: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if file.is_file() and ending(file.name) in READERS and file.name not in _ABOUT and file.name[0] != ".":
            groups.setdefault(_SHARD.sub("", file.name.split(".")[0]), []).append(file)
    return groups


def _saved(path: Path, stem: str) -> Source:
    """A folder of `datasets.save_to_disk`."""
    state = read_object(path / "state.json")
    if state.get("_indices_data_files"):
        raise InputError(
            f"{path}: saved by an old `datasets`, with indices; expected it to be saved again by a newer one"
        )
    try:
        files = [path / str(file["filename"]) for file in state["_data_files"]]
    except (KeyError, TypeError):
        raise InputError(f"{path / 'state.json'}: no list of '_data_files'; expected a folder of `datasets`") from None
    return _of_files(str(path), stem, files)


def _hub(match: re.Match[str], split: str) -> Source:
    name, config = match["name"], match["config"]
    where = f"hf:{name}:{config}" if config else f"hf:{name}"
    splits = load(name, config)
    chosen = _chosen(where, splits, match["split"] or split, match["split"] is not None)
    stem = f"{name.rpartition('/')[2]}-{chosen}"
    return Source(f"{where}@{chosen}", stem, partial(hub_rows, splits[chosen], f"{where}@{chosen}"))


def _chosen(where: str, splits: Iterable[str], wanted: str, named: bool) -> str:
    """The wanted split; where none was named, the only one there is will do."""
    names = list(splits)
    if wanted in names:
        return wanted
    if len(names) == 1 and not named:
        return names[0]
    got = f"no split {wanted!r}" if named else "several splits"
    raise InputError(
        f"{where}: {got}; expected one of {', '.join(names) or 'none'}" + (f": {where}@{names[0]}" if names else "")
    )
