"""Folders that hold an adapter instead of a model: peft's. Torch and peft are imported by what works on one."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any

from reasonloop.errors import InputError, first_line
from reasonloop.files import read_object
from reasonloop.policy.hub import hub_name

CONFIG = "adapter_config.json"
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin", "*.gguf")
"""Files of a whole model's"""
_OWN = ("adapter_model.safetensors", "adapter_model.bin")
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


def base_named(folder: Path) -> str:
    """What the adapter in a folder stands on, as its configuration says: a path from the folder on where there is something,
    or else as it stands there. Raises InputError where it says nothing."""
    config = read_object(folder / CONFIG)
    named = config.get("base_model_name_or_path")
    beside = folder / Path(named).expanduser() if isinstance(named, str) and named else folder
    if beside.resolve() == folder.resolve():
        raise InputError(
            f"model {folder}: an adapter, and its {CONFIG} has base_model_name_or_path = {named!r}; expected the model that "
            "it stands on"
        )
    if beside.exists():
        return str(beside)
    revision = config.get("revision")
    return f"{named}@{revision}" if revision and hub_name(str(named)) and "@" not in str(named) else str(named)


def merge(model: Any, folder: Path) -> Any:
    """The model with a folder's adapter in its weights, by peft, whatever kind of adapter it is. Raises InputError where the
    adapter doesn't fit the model whole, or can't be merged."""
    require_peft()
    import torch
    from peft import PeftModel, load_peft_weights

    tokens = torch.arange(16, device=model.device)[None] % model.config.get_text_config().vocab_size

    def logits(of: Any) -> torch.Tensor:
        with torch.inference_mode():
            found: torch.Tensor = of(input_ids=tokens, use_cache=False).logits
            return found

    if read_object(folder / CONFIG).get("megatron_config"):  # peft would import the module that it names
        raise InputError(f"model {folder}: its {CONFIG} names a module to be run (megatron_core); expected it without")
    if not any((folder / name).is_file() for name in _OWN):  # peft would ask the hub for them
        raise InputError(f"model {folder}: an adapter without its weights; expected {' or '.join(_OWN)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what merging could change is looked at below
            warnings.filterwarnings("error", message=".*[Mm]issing adapter keys.*")
            adapted: Any = PeftModel.from_pretrained(model, str(folder)).eval()
        own = {name for name, _ in (*adapted.named_parameters(), *adapted.named_buffers())}
        spare = [key for key in load_peft_weights(str(folder), device="cpu") if not _has(own, key)]
        if spare:  # peft leaves them out without a word
            raise ValueError(f"the model has no layer for {len(spare)} of its weights, {spare[0]} for one")
        before = logits(adapted)
        plain = adapted.merge_and_unload(safe_merge=True)
        after = logits(plain)
    except Exception as error:  # a damaged or foreign folder, or a kind without weights, fails anywhere inside of peft
        raise InputError(f"model {folder}: its adapter cannot be merged: {first_line(error)}") from error
    gap = float((after - before).abs().max() / before.abs().max().clamp(min=1e-6))
    if not gap < _CLOSE:
        raise InputError(
            f"model {folder}: merged, its adapter gives other logits than beside the weights (by {gap:.2g}, relative): this "
            "kind can't be merged"
        )
    vars(plain).pop("peft_config", None)
    return plain.requires_grad_(True)


def _has(own: set[str], key: str) -> bool:
    """Whether an adapted model has a weight of an adapter's file, where names lack the adapter's, and modules around."""
    owner, _, last = key.rpartition(".")
    names = (
        f"{owner}.default.{last}",
        f"{key}.default",
        f"{key}.default.weight",
        f"{owner}.modules_to_save.default.{last}",
    )
    return any(name in own for name in (key, *names, f"{owner}.base_layer.{last}", f"{owner}.default"))
