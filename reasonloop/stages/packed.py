"""What a branch on another machine needs, as bytes: the policy that it starts from, and the files that its recipe reads."""

from __future__ import annotations

import importlib.util
import os
import site
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from reasonloop.config import Recipe, flat
from reasonloop.config.own_code import module_of, varied
from reasonloop.errors import InputError
from reasonloop.own import search_own
from reasonloop.policy.loading import hugging_face_folder, tokenizer_folder
from reasonloop.runs.session import Session
from reasonloop.runs.stages import Source

Packed = dict[str, np.ndarray]
"""Files by their path in a folder, uint8 each"""

CODEC = "reasonloop-codec"
"""In the inputs: the configuration and tokenizer of the model that the run began with"""
OUTSIDE = "reasonloop-outside"
"""In the inputs: the folder of those that are not below the current directory"""
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".safetensors.index.json")


def packed(folder: Path, within: str = "") -> Packed:
    """The files of a folder, those in folders of its own too, without what Python and git keep beside them."""
    found: Packed = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not {"__pycache__", ".git"} & set(parts):
            found[str(Path(within, *parts))] = _bytes(path)
    return found


def unpack(files: Mapping[str, np.ndarray], folder: Path) -> None:
    """Writes the files below a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(content.data)


def packed_policy(run: Session, start: Source) -> Packed:
    """The policy as a Hugging Face folder: the same one, whatever it was loaded from."""
    with TemporaryDirectory(prefix="reasonloop-") as folder:
        run.policy(start).save(Path(folder) / "policy")
        return packed(Path(folder) / "policy")


@dataclass
class Inputs:
    """What a recipe reads, and the recipe that reads it from there."""

    files: Packed = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    """The task's, with other paths where a file isn't below the current directory"""


def inputs_of(recipe: Recipe) -> Inputs:
    """The files that the recipe names, its own modules, and what `scale.files` lists. Raises InputError as `listed`."""
    found = Inputs()
    for name in recipe.scale.files:
        _take(found, listed(name), str(listed(name)))
    found.options = {key: _carried(found, value) for key, value in recipe.task.options.items()}
    for module in _own_modules(recipe):
        _take_module(found, module)
    tokenizer = tokenizer_folder(recipe.model.source)
    for folder in (hugging_face_folder(recipe.model.source, weights=False), tokenizer):
        for path in sorted(folder.iterdir()):
            if path.is_file() and not path.name.endswith(_WEIGHTS):
                found.files[f"{CODEC}/{path.name}"] = _bytes(path)
    return found


def listed(name: str) -> Path:
    """A path of `scale.files`. Raises InputError for one that isn't there, or not below the current directory."""
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or path == Path():
        raise InputError(f"scale.files: {name!r}: expected a path below the current directory")
    if not path.exists():
        raise InputError(f"scale.files: {name!r}: there is no such file or folder here")
    return path


def _take(found: Inputs, path: Path, name: str) -> None:
    found.files |= packed(path, name) if path.is_dir() else {name: _bytes(path)}


def _carried(found: Inputs, value: Any) -> Any:
    """An option of the task, where it names files as they will lie there."""
    if isinstance(value, list | tuple):
        return [_carried(found, one) for one in value]
    if not isinstance(value, str) or not value:
        return value
    for text, behind in ((value, ""), (value.rpartition("@")[0], "@" + value.rpartition("@")[2])):
        path = Path(text).expanduser()
        if text and _exists(path):
            name = os.path.relpath(path)
            if Path(text).is_absolute() or Path(name).parts[0] == "..":
                name = f"{OUTSIDE}/{len(found.files)}/{path.resolve().name}"
            _take(found, path, name)
            return name + behind
    return value


def _exists(path: Path) -> bool:
    try:
        return path.is_file() or (path.is_dir() and path.resolve() != Path.cwd())
    except OSError:  # too long for a path, say
        return False


def _own_modules(recipe: Recipe) -> Iterator[str]:
    """What stands before the colon where the recipe names code of the user's own."""
    table = recipe.model_dump(mode="json")
    every = flat({key: table[key] for key in ("task", "engine", "rl", "rewards", "exploration")}).values()
    yield from filter(None, map(module_of, every))
    yield from varied(recipe).values()


def _take_module(found: Inputs, module: str) -> None:
    """A module of the user's own, or the whole package that it is in. Installed ones are on every machine."""
    search_own()
    top = module.partition(".")[0]
    spec = importlib.util.find_spec(top)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    origin = Path(places[0]) if places else Path(spec.origin) if spec is not None and spec.has_location else None  # type: ignore[arg-type]
    if origin is None or top == "reasonloop" or any(origin.is_relative_to(path) for path in _installed()):
        return
    _take(found, origin, origin.name)


def _installed() -> list[str]:
    known = sysconfig.get_paths()
    return [*(known[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")), site.getusersitepackages()]


def _bytes(path: Path) -> np.ndarray:
    return np.asarray(np.memmap(path, np.uint8, "r")) if path.stat().st_size else np.empty(0, np.uint8)
