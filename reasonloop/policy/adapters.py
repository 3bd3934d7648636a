"""LoRA adapters in a model of transformers' own: put in by peft, merged for those who read weights.

An adapted layer is a module of peft's around the layer as it was. The weights beneath stay untouched: what is merged is a
copy, made in float32 and rounded once.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from reasonloop.config import LoraSettings
from reasonloop.errors import InputError, RunError, first_line
from reasonloop.files import read_object
from reasonloop.policy.adapter_folders import CONFIG, require_peft
from reasonloop.policy.copies import copied
from reasonloop.policy.hub import hub_name
from reasonloop.written.known import check

WEIGHTS = "adapter_model.safetensors"
AGREE = {torch.float32: 1e-3, torch.bfloat16: 0.05}
"""Most that the logits of a model and of what it was merged to may differ, of their own size: rounding"""
_NAME = "default"
_PREFIX = "base_model.model."
"""What peft's files put before a layer's name"""


STATES = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")
"""Model types whose kernels read the weight of this layer themselves, past an adapter, so that peft has none there:"""
READ_DIRECTLY = "out_proj"


@dataclass(frozen=True)
class Adapter:
    """What a policy has beside its weights."""

    settings: LoraSettings
    base: str
    """The model whose weights it stands on, as a reader of its folder finds it: a name or a path"""


def attach(model: Any, settings: LoraSettings, address: str) -> None:
    """Puts an adapter into the model, which computes the same as before: B is 0. Only the adapter is trained from now on.

    A is drawn from the uniform distribution within 1 / sqrt(in), each layer's by its name and `address`. Float32, whatever
    the weights are. Raises InputError for layers that there aren't, and without peft.
    """
    require_peft()
    from peft import LoraConfig, inject_adapter_in_model

    targets, alpha = settings.targets, settings.alpha
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=int(alpha) if alpha.is_integer() else alpha,  # type: ignore[arg-type]  # no whole number is fine there
        target_modules=targets if isinstance(targets, str) else list(targets),
        exclude_modules=[READ_DIRECTLY] if isinstance(targets, str) and model.config.model_type in STATES else None,
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
        init_lora_weights=False,
    )
    check_targets(model, settings)
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that GPT-2 keeps its weights the other way round
        inject_adapter_in_model(config, model, _NAME)
    for name, layer in layers(model).items():
        a, b = (getattr(layer, part)[_NAME].float().weight for part in ("lora_A", "lora_B"))
        key = hashlib.blake2b(f"{address}\0{name}".encode(), digest_size=16).digest()
        bound = a.shape[1] ** -0.5
        drawn = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little"))).uniform(-bound, bound, a.shape)
        with torch.no_grad():
            a.copy_(torch.from_numpy(drawn.astype(np.float32)))
            b.zero_()


def check_targets(model: Any, settings: LoraSettings) -> None:
    """Raises InputError unless each of the named targets is a linear layer, and none the head: log-probs come from its
    weight as it stands."""
    if isinstance(settings.targets, str):
        return
    modules, head = dict(model.named_modules()), model.get_output_embeddings()
    for target in settings.targets:
        found = [module for name, module in modules.items() if name == target or name.endswith(f".{target}")]
        where = f"lora.targets: {target!r}"
        linear = sorted(
            {name.rpartition(".")[2] for name, module in modules.items() if _linear(module) and module is not head}
        )
        if not found or not all(map(_linear, found)):
            got = "no layer of this model" if not found else f"a {type(found[0]).__name__}"
            raise InputError(f"{where}: {got}; expected linear layers, by name: {', '.join(linear)}")
        if target.endswith(READ_DIRECTLY) and model.config.model_type in STATES:
            raise InputError(
                f"{where}: {model.config.model_type}'s kernels read it past an adapter; expected other layers"
            )
        if any(module is head for module in found):
            raise InputError(f"{where}: the head; expected other layers: log-probs are computed from its own weight")


def _linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | Conv1D)


def is_adapted(module: nn.Module) -> bool:
    """Whether it is a linear layer of peft's with LoRA beside it, and nothing more (no DoRA, no bias)."""
    lora = hasattr(module, "base_layer") and hasattr(module, "lora_A") and len(module.lora_A) > 0  # type: ignore[arg-type]
    return lora and not module.lora_variant and not any(module.lora_bias.values())  # type: ignore[operator]


def is_own(name: str) -> bool:
    """Whether a parameter of this name is an adapter's"""
    return not {"lora_A", "lora_B"}.isdisjoint(name.split("."))


def layers(model: nn.Module) -> dict[str, Any]:
    """The adapted layers, by the name that the plain model has for them."""
    return {name: module for name, module in model.named_modules() if is_adapted(module)}


def base_layer(module: nn.Module) -> nn.Module:
    """The layer itself, without what stands beside it."""
    return module.base_layer if is_adapted(module) else module  # type: ignore[return-value]


def weight(module: Any) -> Tensor:
    """What a linear layer multiplies with, its adapter included: as its own weight lies, in its dtype. No gradient."""
    own: Tensor = base_layer(module).weight.detach()  # type: ignore[operator]
    if not is_adapted(module) or module.disable_adapters:
        return own
    with torch.no_grad():
        return (own.float() + module.get_delta_weight(_NAME).float()).to(own.dtype)


def modules(model: nn.Module) -> Iterator[nn.Module]:
    """All modules of the plain model: adapted layers as they were before."""
    yield base_layer(model)
    for child in base_layer(model).children():
        yield from modules(child)


def merged(model: Any) -> Any:
    """The plain model with the adapter in its weights: other layers' weights are shared, those of adapted ones are new."""
    plain = without(model)
    for name, layer in layers(model).items():
        plain.get_submodule(name).weight = nn.Parameter(weight(layer), requires_grad=False)
    return plain


def without(model: Any) -> Any:
    """The plain model without the adapter: modules of its own on the same weights."""
    tensors = [*model.parameters(), *model.buffers()]
    plain = copied(model, {id(tensor): tensor for tensor in tensors})
    for name, layer in layers(plain).items():
        plain.set_submodule(name, layer.base_layer)
    for attribute in ("peft_config", "_hf_peft_config_loaded"):
        if attribute in vars(plain):
            delattr(plain, attribute)
    return plain


def merged_parameters(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(name, weight) of each parameter of the plain model, the adapter included: one at a time, tied ones once."""
    adapted = layers(model)
    for name, parameter in model.named_parameters():
        owner, _, last = name.rpartition(".")
        layer = adapted.get(owner.removesuffix(".base_layer"))
        if layer is None:
            if not is_own(name):
                yield name, parameter.detach()
        elif owner.endswith(".base_layer"):
            plain = f"{owner.removesuffix('.base_layer')}.{last}"
            yield plain, weight(layer) if last == "weight" else parameter.detach()


def save(model: Any, adapter: Adapter, folder: Path) -> None:
    """adapter_config.json and adapter_model.safetensors, as peft has them, into an existing folder."""
    adapted = layers(model)
    tensors = {
        f"{_PREFIX}{name}.{part}.weight": getattr(layer, part)[_NAME].weight.detach().cpu().contiguous()
        for name, layer in adapted.items()
        for part in ("lora_A", "lora_B")
    }
    try:
        save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    except SafetensorError as error:  # a full disk is no OSError there
        raise OSError(f"{folder}: {error}") from error
    config = model.peft_config[_NAME].to_dict()
    base = hub_name(adapter.base)
    config |= {
        "base_model_name_or_path": base.name if base else adapter.base,
        "revision": base.revision if base else None,
    }
    config |= {"target_modules": _shortest(model, [*adapted])}
    config |= {"inference_mode": True, "init_lora_weights": True}
    told = {key: getattr(value, "value", value) for key, value in config.items()}
    (folder / CONFIG).write_text(json.dumps(told, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _shortest(model: nn.Module, names: list[str]) -> list[str]:
    """The last parts of layers' names, where they mean these layers and no others."""
    short = sorted({name.rpartition(".")[2] for name in names})
    meant = [name for name, module in model.named_modules() if name.rpartition(".")[2] in short]
    return short if sorted(meant) == sorted(names) else sorted(names)


def load(model: nn.Module, folder: Path) -> None:
    """The weights that `save` wrote into an adapter of the same shape. Raises InputError where they are others."""
    check(folder)
    try:
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder / WEIGHTS}: cannot be read: {first_line(error)}") from error
    own = {
        f"{_PREFIX}{name}.{part}.weight": getattr(layer, part)[_NAME].weight
        for name, layer in layers(model).items()
        for part in ("lora_A", "lora_B")
    }
    if {name: value.shape for name, value in own.items()} != {name: value.shape for name, value in tensors.items()}:
        raise InputError(f"{folder}: an adapter of another shape; expected one for the same layers, of the same rank")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(tensors[name])


def told_by(folder: Path) -> Adapter:
    """What the folder of an adapter that `save` wrote says of it."""
    config = read_object(folder / CONFIG)
    settings = LoraSettings(config["r"], float(config["lora_alpha"]), tuple(config["target_modules"]))
    base, revision = config["base_model_name_or_path"], config["revision"]
    return Adapter(settings, f"{base}@{revision}" if revision else base)


def trial(model: Any) -> tuple[Tensor, torch.dtype]:
    """What a model gives random tokens: float32 logits on the CPU, and the dtype that it computes in."""
    vocabulary, generator = model.config.get_text_config().vocab_size, np.random.default_rng(0)
    tokens = torch.from_numpy(generator.integers(0, vocabulary, 24))[None].to(model.device)
    with torch.inference_mode():
        return model(input_ids=tokens, use_cache=False).logits.float().cpu(), next(model.parameters()).dtype


def expect_agreement(one: tuple[Tensor, torch.dtype], other: tuple[Tensor, torch.dtype], what: str) -> None:
    """Raises RunError unless two models' trials came out the same, to the rounding of the coarser dtype."""
    (ours, own), (theirs, their) = one, other
    if not theirs.isfinite().all():  # a policy that has diverged says so elsewhere
        return
    gap = float(((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-6)).nan_to_num(torch.inf))
    limit = max(AGREE.get(dtype, 1e-3) for dtype in (own, their))
    if not gap < limit:
        raise RunError(
            f"{what}: their logits differ by {gap:.2g} (relative), more than rounding; nothing was delivered"
        )
