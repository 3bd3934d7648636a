"""Folders that hold an adapter instead of a model: peft's. Torch and peft are imported by what works on one."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any

from reasonloop.errors import InputError, first_line
from reasonloop.files import read_object

CONFIG = "adapter_config.json"
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin", "*.gguf")
"""Files of a whole model's"""
_CLOSE = 1e-3
"""Most that merging may change the logits, of their own size, in float32"""


def require_peft() -> None:
    """Raises InputError where peft isn't installed."""
    if importlib.util.find_spec("peft") is None:
        raise InputError("an adapter (LoRA) needs peft, which is not installed; expected it after: pip install peft")


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds an adapter. Raises InputError where it holds a whole model's weights, too."""
    if not (folder / CONFIG).is_file():
        return False
    weights = next((path.name for pattern in _WEIGHTS for path in sorted(folder.glob(pattern))), None)
    if weights is not None:
        raise InputError(
            f"model {folder}: {weights} and {CONFIG} in one folder, which doesn't say whether the adapter is in the weights "
            "already; expected them in folders of their own"
        )
    return True


def bases(folder: Path) -> list[str]:
    """What the adapter in a folder may stand on, as its configuration says: a path from the folder on, or else as it stands
    there. Raises InputError where it says nothing."""
    named = read_object(folder / CONFIG).get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise InputError(
            f"model {folder}: its {CONFIG} has no base_model_name_or_path; expected the model that it changes"
        )
    beside = folder / Path(named).expanduser()
    return [*([str(beside)] if beside.exists() else []), named]


def merge(model: Any, folder: Path) -> Any:
    """The model with a folder's adapter in its weights, by peft, whatever kind of adapter it is. Raises InputError where the
    adapter doesn't fit the model whole, or can't be merged."""
    require_peft()
    import torch
    from peft import PeftModel

    def logits(of: Any) -> torch.Tensor:
        with torch.inference_mode():
            found: torch.Tensor = of(input_ids=torch.arange(2, 18)[None].to(model.device), use_cache=False).logits
            return found

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*[Mm]issing adapter keys.*")
            adapted: Any = PeftModel.from_pretrained(model, str(folder)).eval()
        if not hasattr(adapted, "merge_and_unload"):
            raise InputError(f"model {folder}: an adapter of kind {adapted.active_peft_config.peft_type.value}")
        before = logits(adapted)
        plain = adapted.merge_and_unload(safe_merge=True)
        after = logits(plain)
    except Exception as error:  # a damaged folder, or another model's, fails anywhere inside of peft
        raise InputError(f"model {folder}: its adapter cannot be merged: {first_line(error)}") from error
    gap = float((after - before).abs().max() / before.abs().max().clamp(min=1e-6))
    if not gap < _CLOSE:
        raise InputError(
            f"model {folder}: merged, its adapter gives other logits than beside the weights (by {gap:.2g}, relative): this "
            "kind can't be merged"
        )
    return plain
