"""GGUF files as Hugging Face folders: converted once, and kept in the user's cache under what they hold."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from functools import cache, lru_cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from reasonloop.errors import InputError
from reasonloop.files import made_whole, own_alone, read_object, user_cache
from reasonloop.policy.asking import alone, quiet
from reasonloop.written.digests import of_file

MADE = "made.json"
"""In a conversion: the digests of its other files"""
_FORM = 1
"""Of what `_convert` writes: another one for another outcome"""


def kept(file: Path) -> Path | None:
    """The folder that a GGUF file was converted into; None where it wasn't, or where somebody else could have changed it, or
    something has."""
    folder = _place(file)
    with suppress(OSError, InputError):
        state = _state(folder)
        if state is not None and _whole(folder, state):
            return folder
    return None


def converted(file: Path) -> Path:
    """The same, made now if need be: reading GGUF takes half a minute. Without a cache that is the user's alone it is kept
    for this process."""
    found = kept(file)
    if found is not None:
        return found
    with made_whole(_place(file)) as folder:
        folder.chmod(0o700)
        _convert(file, folder)
        for path in folder.iterdir():
            path.chmod(0o600)
        made = folder / MADE
        made.write_text(json.dumps({path.name: of_file(path) for path in sorted(folder.iterdir())}) + "\n")
        made.chmod(0o600)
    return _place(file)


def _convert(file: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quiet()
    model: Any = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32, **alone())
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, **alone())
    # the weights are plain now, but transformers would refuse to save them as "quantized with gguf"
    for owner, name in (
        (model, "hf_quantizer"),
        (model, "quantization_method"),
        (model.config, "quantization_config"),
    ):
        if hasattr(owner, name):
            delattr(owner, name)
    model.is_quantized = False
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _place(file: Path) -> Path:
    """Where a file's conversion is, or will be: another place for other bytes, and for other versions of what reads them."""
    status = file.stat()
    content = _digest(file, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    made_of = f"{content} {_FORM} transformers {_version('transformers')} gguf {_version('gguf')}"
    return _cache() / f"gguf-{sha256(made_of.encode()).hexdigest()[:32]}"


@lru_cache(maxsize=64)
def _digest(file: Path, state: tuple[int, ...]) -> str:
    return of_file(file)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _cache() -> Path:
    try:
        return user_cache()
    except (OSError, RuntimeError):
        return _own_cache()


@cache
def _own_cache() -> Path:
    """This process's, where the user has none."""
    folder = tempfile.mkdtemp(prefix="reasonloop-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _state(folder: Path) -> tuple[tuple[str, int, int, int, int], ...] | None:
    """Changes whenever a file in the folder does; None where nobody has made it, or somebody else may have changed it."""
    if not own_alone(folder, stat.S_ISDIR):
        return None
    names = sorted(os.listdir(folder))
    if not all(own_alone(folder / name, stat.S_ISREG) for name in names):
        return None
    every = ((name, os.lstat(folder / name)) for name in names)
    return tuple((name, one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns) for name, one in every)


@lru_cache(maxsize=64)
def _whole(folder: Path, state: tuple[tuple[str, int, int, int, int], ...]) -> bool:
    """Whether its files are those that were written."""
    names = [name for name, *_ in state if name != MADE]
    return bool(read_object(folder / MADE) == {name: of_file(folder / name) for name in names})
