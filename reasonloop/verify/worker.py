"""The worker process: reads one item, says what the verifier says of it, reads the next. Started by `process`.

In come frames, 4 bytes of length, big-endian, and a pickle (the parent is trusted); out go lines of JSON, so that
nothing a verifier does can make the parent run code. The first frame is the start-up order, the first line says that
the worker is ready; then two lines for each frame: it was read, and what came of it. End of input means that the parent is
gone: the worker exits.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, BinaryIO, TextIO

from reasonloop.own import load_named
from reasonloop.records import Judgement, Verdict, as_judgement
from reasonloop.verify.answers import one_line
from reasonloop.verify.sandbox import kernel

MEMORY_BYTES = 4 << 30
"""Of a worker's address space"""
GRACE = 5.0
"""Seconds beyond the deadline after which a worker ends itself, should its parent no longer be there to do so."""


def load_verifier(target: str, options: Mapping[str, Any]) -> Any:
    """`package.module:Class` constructed with `options`. Raises whatever the import or the constructor raises."""
    verifier = load_named(target, "its class", "a class (package.module:Class)")(**options)
    if not callable(getattr(verifier, "verify", None)):
        raise TypeError(f"{type(verifier).__name__} has no method verify(problem, response)")
    return verifier


def crash(error: BaseException) -> Judgement:
    """The judgement on an item whose verifier raised `error`."""
    text = str(error)
    return Judgement(Verdict.CRASHED, one_line(f"{type(error).__name__}: {text}" if text else type(error).__name__))


def main() -> None:
    """Serve until the input ends."""
    source, sink = _take_pipes()
    frames = _frames(source)
    first = next(frames, None)
    if first is None:
        return
    order = pickle.loads(first)
    kernel.limit(CORE=0)
    with suppress(ValueError, OSError):  # macOS knows this limit and refuses to set it
        kernel.limit(AS=MEMORY_BYTES)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process in the kernel, whoever holds the interpreter lock
    try:
        verifier = load_verifier(order["target"], order["options"])
        prepare = getattr(verifier, "prepare", None)
        if callable(prepare):
            prepare()
    except BaseException as error:
        _say(sink, failed=crash(error).detail)
        return
    _say(sink, ready=True)
    last_resort = order["deadline"] + GRACE
    for frame in frames:
        signal.setitimer(signal.ITIMER_REAL, last_resort)
        retire = False
        _say(sink, taken=True)
        try:
            problem, response = pickle.loads(frame)
            judgement = as_judgement(verifier.verify(problem, response))
        except BaseException as error:  # sys.exit() in a verifier is a crash of this item, not of the worker
            judgement = crash(error)
            retire = isinstance(error, MemoryError)
        signal.setitimer(signal.ITIMER_REAL, 0)
        told = {"detail": one_line(judgement.detail, 500), "score": judgement.score}
        _say(sink, verdict=judgement.verdict.value, **told, retire=retire)
    os._exit(0)  # a thread that a verifier left behind must not keep the process


def _take_pipes() -> tuple[BinaryIO, TextIO]:
    """Move the protocol's pipes off descriptors 0 and 1, where a verifier's input() and print() would find them."""
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w", encoding="ascii")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return source, sink


def _frames(source: BinaryIO) -> Iterator[bytes]:
    while len(head := source.read(4)) == 4:
        yield source.read(int.from_bytes(head, "big"))


def _say(sink: TextIO, **message: Any) -> None:
    print(json.dumps(message), file=sink, flush=True)
