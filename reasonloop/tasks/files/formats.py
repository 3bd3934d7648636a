"""What a file is, told by its first bytes and its name; and what is said of those that aren't read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from reasonloop.errors import InputError
from reasonloop.tasks.files.raw import Fault, RawRow, Row, shown
from reasonloop.tasks.files.tables import arrow_rows, parquet_rows
from reasonloop.tasks.files.text import csv_rows, json_rows

READERS: dict[str, Callable[[Path], Iterator[RawRow]]] = {
    ".jsonl": json_rows,
    ".json": json_rows,
    ".csv": csv_rows,
    ".tsv": csv_rows,
    ".parquet": parquet_rows,
    ".arrow": arrow_rows,
    ".feather": arrow_rows,
}
"""By the end of the name, `.gz` behind it taken off; files of other names are read as JSON"""

SAVE = "save it as CSV, JSON Lines or Parquet"
NOT_READ = {
    ".xlsx": ("an Excel workbook", "save it as CSV"),
    ".xls": ("an Excel workbook", "save it as CSV"),
    ".ods": ("a spreadsheet", "save it as CSV"),
    ".pkl": ("a Python pickle, which may run any code", SAVE),
    ".pickle": ("a Python pickle, which may run any code", SAVE),
    ".pt": ("a PyTorch file, which may run any code", SAVE),
    ".npz": ("a NumPy file", SAVE),
    ".npy": ("a NumPy file", SAVE),
    ".h5": ("an HDF5 file", SAVE),
    ".db": ("a database", SAVE),
    ".sqlite": ("a database", SAVE),
    ".yaml": ("YAML", SAVE),
    ".yml": ("YAML", SAVE),
    ".xml": ("XML", SAVE),
    ".html": ("an HTML page", "download the file itself"),
    ".tar": ("an archive", "unpack it, and name a file or the folder"),
    ".tar.gz": ("an archive", "unpack it, and name a file or the folder"),
    ".tgz": ("an archive", "unpack it, and name a file or the folder"),
    ".7z": ("an archive", "unpack it, and name a file or the folder"),
    ".zip": ("a zip archive", "unpack it, and name a file or the folder"),
    ".zst": ("packed with zstd", "unpack it (`zstd -d`), or pack it with gzip"),
    ".xz": ("packed with xz", "unpack it (`xz -d`), or pack it with gzip"),
    ".bz2": ("packed with bzip2", "unpack it (`bunzip2`), or pack it with gzip"),
}
"""By the end of the name: what it is, and what to do"""
BEGINNINGS = {
    b"version https://git-lfs": ("a Git LFS pointer, not the file itself", "fetch the file (`git lfs pull`)"),
    b"<!DOCTYPE": NOT_READ[".html"],
    b"<!doctype": NOT_READ[".html"],
    b"<html": NOT_READ[".html"],
    b"PK\x03\x04": NOT_READ[".zip"],
    b"\x80\x02": NOT_READ[".pkl"],
    b"\x80\x03": NOT_READ[".pkl"],
    b"\x80\x04": NOT_READ[".pkl"],
    b"\x80\x05": NOT_READ[".pkl"],
    b"\x89HDF": NOT_READ[".h5"],
    b"SQLite format 3": NOT_READ[".db"],
    b"\x28\xb5\x2f\xfd": NOT_READ[".zst"],
    b"\xfd7zXZ": NOT_READ[".xz"],
    b"BZh": NOT_READ[".bz2"],
    b"7z\xbc\xaf": NOT_READ[".7z"],
    b"\x93NUMPY": NOT_READ[".npy"],
}
"""By the first bytes"""


def ending(name: str) -> str:
    """The end of a file's name that tells what it is, `.gz` taken off; empty where none is known."""
    known = (*NOT_READ, *READERS)
    name = name.lower()
    return next((end for end in known if name.endswith((end, f"{end}.gz"))), "")


def rows_of_file(path: Path) -> Iterator[RawRow]:
    """The rows of a file, one at a time. Raises InputError for a file that can't be read."""
    if not path.exists():
        raise InputError(f"{path}: there is no such file; expected a file of problems")
    beginning = b""
    try:
        if path.is_file():  # a pipe can be read only once
            with path.open("rb") as file:
                beginning = file.read(32)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a file of problems") from None
    end = ending(path.name)
    told = NOT_READ.get(end) or next((told for start, told in BEGINNINGS.items() if beginning.startswith(start)), None)
    if told:
        raise InputError(
            f"{path}: {told[0]}; expected JSON Lines, JSON, CSV, Parquet, or a folder of `datasets`: {told[1]}"
        )
    if beginning.startswith(b"PAR1"):
        return parquet_rows(path)
    if beginning.startswith(b"ARROW1"):
        return arrow_rows(path)
    return READERS.get(end, json_rows)(path)


def read_rows(path: Path, expected: str) -> list[tuple[RawRow, Row]]:
    """The rows of a file in which each is an object. Raises InputError for the first that isn't, with what was `expected`
    of it."""
    rows: list[tuple[RawRow, Row]] = []
    for raw in rows_of_file(path):
        if isinstance(raw.value, Fault):
            raise InputError(f"{raw.place}: {raw.value.reason}; expected {expected}")
        if not isinstance(raw.value, dict):
            raise InputError(f"{raw.place}: {shown(raw.value)} is no JSON object; expected {expected}")
        rows.append((raw, raw.value))
    if not rows:
        raise InputError(f"{path}: the file is empty; expected one JSON object per line: {expected}")
    return rows
