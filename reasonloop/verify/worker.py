"""The worker process: reads one item, says what the verifier says of it, reads the next. Started by `workers`.

Frames are 4 bytes of length, big-endian, and a payload: pickles from the parent (which is trusted), JSON to the
parent (so that nothing a verifier does can make the parent run code). The first frame in is the start-up order, the
first one out says that the worker is ready; then one out for each one in. End of input means that the parent is gone:
the worker exits.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import pickle
import resource
import signal
import sys
from contextlib import suppress
from typing import Any, BinaryIO

from reasonloop.records import Judgement, Verdict, as_judgement
from reasonloop.verify.answers import one_line

FRAME_LIMIT = 1 << 16
"""Bytes of a frame to the parent; a longer one is garbage."""
GRACE = 5.0
"""Seconds beyond the deadline after which a worker ends itself, should its parent no longer be there to do so."""
_PR_SET_PDEATHSIG = 1


def load_verifier(target: str, options: dict[str, Any]) -> Any:
    """`package.module:Class` constructed with `options`. Raises whatever the import or the constructor raises."""
    module_name, _, class_name = target.partition(":")
    if not module_name or not class_name:
        raise ValueError(f"expected package.module:Class, got {target!r}")
    verifier = getattr(importlib.import_module(module_name), class_name)(**options)
    if not callable(getattr(verifier, "verify", None)):
        raise TypeError(f"{class_name} has no method verify(problem, response)")
    return verifier


def crash(error: BaseException) -> Judgement:
    """The judgement on an item whose verifier raised `error`."""
    text = str(error)
    return Judgement(Verdict.CRASHED, one_line(f"{type(error).__name__}: {text}" if text else type(error).__name__))


def main() -> None:
    """Serve until the input ends."""
    source, sink = _take_pipes()
    first = _read(source)
    if first is None:
        return
    order = pickle.loads(first)
    die_with(order["parent"])
    _limit(order["memory_bytes"])
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process in the kernel, whoever holds the interpreter lock
    try:
        verifier = load_verifier(order["target"], order["options"])
        prepare = getattr(verifier, "prepare", None)
        if callable(prepare):
            prepare()
    except BaseException as error:
        _send(sink, {"failed": crash(error).detail})
        return
    _send(sink, {"ready": True})
    last_resort = order["deadline"] + GRACE
    while (frame := _read(source)) is not None:
        signal.setitimer(signal.ITIMER_REAL, last_resort)
        retire = False
        try:
            problem, response = pickle.loads(frame)
            judgement = as_judgement(verifier.verify(problem, response))
        except BaseException as error:  # sys.exit() in a verifier is a crash of this item, not of the worker
            judgement = crash(error)
            retire = isinstance(error, MemoryError)
        signal.setitimer(signal.ITIMER_REAL, 0)
        detail = one_line(judgement.detail, 500)
        _send(sink, {"verdict": judgement.verdict.value, "detail": detail, "retire": retire})
    os._exit(0)  # a thread that a verifier left behind must not keep the process


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Move the protocol's pipes off descriptors 0 and 1, where a verifier's input() and print() would find them."""
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return source, sink


def die_with(parent: int) -> None:
    """The kernel kills this process when the thread of `parent` that started it ends."""
    # End of input reaches a worker only between items; a verifier that hangs must die with its parent too.
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def _limit(memory_bytes: int | None) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_bytes is not None:
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        limit = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
        with suppress(ValueError, OSError):  # macOS knows this limit and refuses to set it
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _read(source: BinaryIO) -> bytes | None:
    head = source.read(4)
    return source.read(int.from_bytes(head, "big")) if len(head) == 4 else None


def _send(sink: BinaryIO, message: dict[str, Any]) -> None:
    body = json.dumps(message).encode()
    sink.write(len(body).to_bytes(4, "big") + body)
    sink.flush()
