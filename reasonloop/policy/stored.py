"""What a model's files say of its weights without one of them being loaded. Free of torch."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path

from reasonloop.errors import InputError
from reasonloop.files import read_object

_KINDS = (
    ("model.safetensors", False),
    ("model.safetensors.index.json", True),
    ("pytorch_model.bin", False),
    ("pytorch_model.bin.index.json", True),
    ("adapter_model.safetensors", False),
)
"""Where weights are, and whether an index names their files; the first is taken, as transformers does"""
_LONGEST_HEADER = 100 << 20


def weight_files(folder: Path, names: Collection[str]) -> list[str]:
    """The files that a model's weights are in, of all that there are of it (`names`); an index is read from `folder`. Copies
    in other formats aren't among them; empty where there are none."""
    for name, is_index in _KINDS:
        if name in names:
            found = read_object(folder / name).get("weight_map") if is_index else {"": name}
            if not isinstance(found, Mapping) or not all(isinstance(file, str) for file in found.values()):
                raise InputError(f"{folder / name}: no weight_map of files in it; expected an index of weights")
            if any(Path(file).is_absolute() or ".." in Path(file).parts for file in found.values()):
                raise InputError(
                    f"{folder / name}: names files outside of the model's folder; expected an index of its own"
                )
            return sorted(set(found.values()))
    return []


@dataclass(frozen=True)
class StoredWeights:
    """Weights as their files hold them."""

    bytes: int
    numbers: Mapping[str, int]
    """How many there are of each type, as safetensors names it: {"BF16": 494032768}. Empty for other files"""

    @property
    def count(self) -> int | None:
        """Of all types together; None where it isn't known. Tied weights are stored, and counted, once."""
        return sum(self.numbers.values()) or None


def stored_weights(folder: Path) -> StoredWeights | None:
    """Of a Hugging Face folder; None where not all of its weights are there."""
    names = weight_files(folder, [path.name for path in folder.iterdir()])
    files = [folder / name for name in names]
    if not files or not all(file.is_file() for file in files):
        return None
    numbers: Counter[str] = Counter()
    for file in files:
        if file.suffix == ".safetensors":
            numbers.update(_numbers(file))
    return StoredWeights(sum(file.stat().st_size for file in files), dict(numbers))


def _numbers(file: Path) -> Counter[str]:
    """How many numbers a safetensors file has of each type; nothing for a damaged one, which loading will say."""
    found: Counter[str] = Counter()
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, struct.error), file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        if length <= _LONGEST_HEADER:
            header = json.loads(opened.read(length))
            for name, tensor in header.items():
                if name != "__metadata__":
                    found[tensor["dtype"]] += prod(tensor["shape"])
    return found
