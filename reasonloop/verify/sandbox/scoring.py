"""The helper that makes reasoning-gym's problems and scores answers to them. Standard library only, but for that library.

Some of its scorers execute the answer. So every answer is scored by a process of its own, a fork of the warm helper with
what a program of `namespaces` has: its own user, mount, ipc, uts and pid namespaces, no network, limits, an empty folder.
The helper takes answers for text, nothing more; its root shows the installed packages, read-only.

A verdict is told by the process that an answer may run in. What it must not do there is decide it: text that is executed
may be an expression of numbers, names and calls, without attributes, builtin functions or functions of its own (`_code`).
"""

from __future__ import annotations

import builtins
import dis
import gc
import importlib
import os
import random
import sys
import threading
import types
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from reasonloop.verify.sandbox import guest, namespaces
from reasonloop.verify.sandbox.wire import WireError, receive, send

LIBRARY = "reasoning_gym"
_NOT_GENERATORS = frozenset({"composite"})
_OWN_OPTIONS = frozenset({"seed", "size"})
_KEPT = 1000
"""Problems that the helper keeps, since many responses answer the same one."""
_VERDICTS = ("wrong", "crashed")
_VERDICT_LIMIT = 4096
"""Bytes of a process's message, at most: what a pipe takes whole"""
_JOIN_LIMIT = 30.0
"""Seconds that a thread of the library's may take to end"""
_HARMLESS = frozenset({"abs", "min", "max", "pow", "round", "sum", "divmod", "int", "float", "complex", "bool"})
"""Builtins that an answer may name"""
_STEPS = ("LOAD_ATTR", "LOAD_METHOD", "STORE_", "DELETE_", "IMPORT_", "LOAD_BUILD_CLASS", "MAKE_FUNCTION")
"""Beginnings of instructions that an expression of numbers, names and calls doesn't have"""
_SYMPY_ALONE = ("sympy",)
"""The names of `from sympy import *`, which SymPy's parser executes first"""
_IMPORTS = ("<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>")


class Refused(Exception):
    """(what, what it is, what is known): "dataset", "option" or "config" is not as the library wants it."""


def main() -> None:
    """Serve until the input ends.

    In: {"limits", "packages", "dataset", "config", "splits": [[seed, size], ...]}, then requests; out: ["ready"], then a
    reply to each (`_Scorer.serve`). Or ["refused", what, which, known], or ["failed", why], which are the last.
    """
    order = receive(0)
    out = os.dup(1)
    os.dup2(2, 1)
    try:
        scorer = _Scorer(order)
        send(out, ["ready"])
        with suppress(EOFError):
            while True:
                send(out, scorer.reply(receive(0, guest.ITEM_LIMIT)))
    except Refused as refusal:
        send(out, ["refused", *refusal.args])
    except (OSError, EOFError, WireError, ImportError) as error:
        send(out, ["failed", namespaces.reason(error)])


class _Scorer(namespaces.Helper):
    """The library's problems of one generator, and a process for every answer."""

    def __init__(self, order: Mapping[str, Any]) -> None:
        self._order = order
        self._datasets: list[Any] = []
        self._kept: dict[tuple[int, int], Any] = {}
        self._at: tuple[int, int] = (0, 0)
        self._answer = ""
        super().__init__(order["limits"], order["packages"])

    def load(self) -> None:
        """Import the library and make the generator of each split. Raises Refused, or whatever the import raises."""
        sys.path += self._order["packages"]
        made = importlib.import_module(f"{LIBRARY}.factory")
        importlib.import_module(LIBRARY)  # registers the generators
        name, config = self._order["dataset"], self._order["config"]
        names = sorted(set(made.DATASETS) - _NOT_GENERATORS)
        if name not in names:
            raise Refused("dataset", name, names)
        options = sorted(set(made.DATASETS[name][1].__dataclass_fields__) - _OWN_OPTIONS)
        for key in config:
            if key not in options:
                raise Refused("option", key, options)
        try:
            self._datasets = [
                made.create_dataset(name, seed=seed, size=size, **config) if size else None
                for seed, size in self._order["splits"]
            ]
        except Exception as error:  # whatever its checks raise
            raise Refused("config", _told(error), []) from None
        for thread in threading.enumerate():  # a process with threads gets no user namespace
            if thread is not threading.current_thread():
                thread.join(_JOIN_LIMIT)
        gc.collect()
        gc.freeze()

    def reply(self, request: list[Any]) -> list[Any]:
        """To ["entries", split, start, stop]: ["entries", [[question, answer], or [None, why there is none], ...]].

        To ["score", split, index, question, answer]: ["score", number], or ["verdict", "wrong", "crashed" or "timeout",
        detail]. Raises OSError or WireError if no process can be made.
        """
        if request[0] == "entries":
            _, split, start, stop = request
            return ["entries", [self._problem(split, index) for index in range(start, stop)]]
        _, split, index, question, self._answer = request
        self._at = split, index
        if self._at not in self._kept:
            while len(self._kept) >= _KEPT:
                self._kept.pop(next(iter(self._kept)))
            try:
                self._kept[self._at] = self._entry(split, index)
            except Exception as error:  # whatever a generator raises
                return ["verdict", "crashed", f"the problem could not be made again: {_told(error)}"]
        if self._kept[self._at]["question"] != question:
            return ["verdict", "crashed", "the generator made another problem than before"]
        return self._scored(*self.make())

    def _problem(self, split: int, index: int) -> list[Any]:
        try:
            entry = self._entry(split, index)
        except Exception as error:  # whatever a generator raises
            return [None, _told(error)]
        question, answer = entry["question"], entry["answer"]
        if not isinstance(question, str) or not isinstance(answer, str | None):
            return [None, f"a question that is {type(question).__name__}, an answer that is {type(answer).__name__}"]
        return [question, answer]

    def _entry(self, split: int, index: int) -> Any:
        """The library's problem. The same every time, also where it draws from a generator that all share."""
        seed = self._order["splits"][split][0] + index
        random.seed(seed)
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed(seed % (1 << 32))
        return self._datasets[split][index]

    def _scored(self, process: int, messages: int) -> list[Any]:
        """What the process says, once it is gone. It may be anything, since an answer may have been executed there."""
        try:
            ended = self.wait(process, messages)
        finally:
            namespaces.kill(process)
        try:
            told = None if ended else receive(messages, _VERDICT_LIMIT)
        except (EOFError, OSError, WireError):
            return ["verdict", "crashed", "the scorer was killed, or ended itself"]
        finally:
            os.close(messages)
        match told:
            case None:
                verdict, detail = ended or ("crashed", "the scorer sent what is no score")
                return ["verdict", verdict, detail.replace("no verdict", "no score")]
            case ["score", int() | float() as score]:
                return ["score", float(score)]
            case ["verdict", str(verdict), str(detail)] if verdict in _VERDICTS:
                return ["verdict", verdict, detail[: guest.DETAIL_LIMIT]]
        return ["verdict", "crashed", "the scorer sent what is no score"]

    def check(self, messages: int) -> None:
        """The life of a process: locks itself in, scores the answer, tells the score."""
        self.lock_in(messages)
        send(messages, ["made"])
        send(messages, ["started"])
        guest.silence(0, 1, 2)
        os.environ.clear()
        send(messages, self._score())

    def _score(self) -> list[Any]:
        code: list[str] = []
        random.seed(0)
        sys.addaudithook(_watch(code))
        try:
            score = float(self._datasets[self._at[0]].score_answer(self._answer, self._kept[self._at]))
        except MemoryError:
            return ["verdict", "crashed", "the scorer ran out of memory"]
        except BaseException as error:  # an answer that ends the process, too
            score, raised = 0.0, f"the scorer raised {_told(error)}"
        else:
            raised = ""
        if code:
            return ["verdict", "wrong", f"the answer is code, which is not executed: {code[0]}"]
        return ["verdict", "crashed", raised] if raised else ["score", score]


def _watch(found: list[str]) -> Callable[[str, tuple[Any, ...]], None]:
    """A hook that keeps code from being executed, but for modules and expressions, and notes why."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "exec" and (why := _code(arguments[0])) and not _importing():
            found.append(why)
            raise PermissionError(why)

    return hook


def _code(code: types.CodeType) -> str:
    """What makes the code more than an expression of numbers, names and calls; nothing if it is one."""
    if any(isinstance(constant, types.CodeType) for constant in code.co_consts):
        return "a function or a loop"
    if code.co_names == _SYMPY_ALONE:
        return ""
    for step in dis.get_instructions(code):
        if step.opname.startswith(_STEPS):
            return f"an attribute, an assignment or an import ({str(step.argval)[:40]})"
    for name in code.co_names:
        if name.startswith("_") or (name in vars(builtins) and name not in _HARMLESS):
            return f"the name {name[:40]}"
    return ""


def _importing() -> bool:
    """Whether a module is being imported: its code is the library's own."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename in _IMPORTS:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _told(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split())
    except BaseException:  # its own __str__, which may be an answer's
        text = ""
    name = type(error).__name__[:100]
    return (f"{name}: {text}" if text else name)[: guest.DETAIL_LIMIT]
