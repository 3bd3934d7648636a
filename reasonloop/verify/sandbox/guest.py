"""What runs inside: the program, which serves calls, and the checker, which makes them. Standard library only.

Two processes that share nothing but a pair of pipes. The checker executes the tests; a name of the program is a `Proxy`
there, whose call sends the arguments to the program's process and rebuilds what comes back as plain builtins. The program
sees arguments, never an expected value, a test's text or the verdict: it can lie about its own results only.
"""

from __future__ import annotations

import builtins
import contextlib
import gc
import os
import random
import signal
import symtable
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from reasonloop.verify.sandbox.wire import MESSAGE_LIMIT, WireError, decode, encode, receive, send

DETAIL_LIMIT = 300
"""Characters; as JSON, and escaped, they are still less than a pipe takes at once (`namespaces`)."""
ITEM_LIMIT = 64 << 20
"""Bytes of an item: a program and its tests."""
_ENDS_LOOPS = (StopIteration, StopAsyncIteration)
"""What tests that call the program through `map`, `filter` or `iter` would take for the end of that loop. There it is a
RuntimeError, as where a generator raises it."""
_RAISED = {
    name: kind
    for name, kind in vars(builtins).items()
    if isinstance(kind, type)
    and issubclass(kind, Exception)
    and not issubclass(kind, (UnicodeError, ExceptionGroup, *_ENDS_LOOPS))
}
"""What a program's calls raise in the tests, by name"""


def serve(requests: int, replies: int) -> None:
    """The program's process: execute the program, then answer calls until the checker is gone.

    Requests are ["load", source] and ["call", name, [argument...], {keyword: argument}]; replies are ["value", value],
    ["raised", builtin exception, its own name, text], and a key of _ENDS with its text.
    """
    silence(0, 1, 2)
    sys.argv, sys.path[:] = ["program"], [path for path in sys.path if path]
    os.environ.clear()
    random.seed(0)  # so that a program which guesses gets the same verdict every time
    module = types.ModuleType("program")
    sys.modules["program"] = module  # dataclasses look their module up
    gc.collect()
    gc.freeze()
    send(replies, ["ready"])
    with contextlib.suppress(EOFError, OSError):
        while True:
            _reply(replies, module, receive(requests, ITEM_LIMIT))


def _reply(replies: int, module: types.ModuleType, request: list[Any]) -> None:
    try:
        reply = _load(module, request[1]) if request[0] == "load" else _call(module, *request[1:])
    except MemoryError:
        reply = ["memory", ""]
    except WireError as error:
        reply = ["type", str(error)]
    except BaseException as error:  # SystemExit and KeyboardInterrupt are a program's exceptions like any other
        kinds = [] if isinstance(error, _ENDS_LOOPS) else [kind.__name__ for kind in type(error).__mro__]
        known = next((name for name in kinds if name in _RAISED), "RuntimeError")
        reply = ["raised", known, type(error).__name__[:100], _text(error)]
    try:
        send(replies, reply)
    except MemoryError:
        send(replies, ["memory", ""])


def _load(module: types.ModuleType, source: str) -> list[Any]:
    try:
        code = compile(source, "program", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, OverflowError) as error:
        return ["syntax", _text(error)]
    exec(code, module.__dict__)
    return ["value", None]


def _call(module: types.ModuleType, name: str, arguments: list[Any], keywords: dict[str, Any]) -> list[Any]:
    if name not in module.__dict__:
        raise NameError(f"name {name!r} is not defined")
    positional = [decode(argument) for argument in arguments]
    result = module.__dict__[name](*positional, **{key: decode(value) for key, value in keywords.items()})
    return ["value", encode(result)]


def _text(error: BaseException) -> str:
    try:
        return str(error)[:DETAIL_LIMIT]
    except BaseException:  # the program's own __str__
        return ""


class Unfinished(BaseException):
    """(verdict, detail): there will be no more values. Not an Exception, so that no test can go on after it."""


# what it means for the verdict that the program's process says so
_ENDS = {
    "syntax": ("unparseable", "SyntaxError: "),
    "type": ("wrong", "the program returned "),
    "memory": ("crashed", "the program ran out of memory"),
}


class Program:
    """The program as the checker sees it. `exchange` sends a request and returns the reply; it may raise Unfinished."""

    def __init__(self, exchange: Callable[[list[Any]], Any]) -> None:
        self._exchange = exchange
        self.calls = 0
        self.raised = ""
        """The last exception that a call raised, as the program has it"""
        self.error: Exception | None = None
        """The same as the tests get it"""
        self.end: Unfinished | None = None

    def load(self, source: str) -> None:
        """Execute the program. Raises Unfinished if that fails."""
        reply = self._ask(["load", source])
        if reply[0] == "raised":
            self._stop("wrong", f"the program raised {_exception(reply)}")

    def call(self, name: str, *arguments: Any, **keywords: Any) -> Any:
        """What the program's function returns. Raises the builtin exception that it raised, or Unfinished."""
        self.calls += 1
        try:
            encoded = [encode(a, False) for a in arguments], {k: encode(v, False) for k, v in keywords.items()}
        except WireError as error:
            self._stop("crashed", f"the tests pass {error}")
        reply = self._ask(["call", name, *encoded])
        if reply[0] == "value":
            try:
                return decode(reply[1])
            except WireError as error:
                self._stop("wrong", f"the program sent {error}")
        self.raised = _exception(reply)
        self.error = _RAISED.get(reply[1], RuntimeError)(reply[3])
        raise self.error

    def _ask(self, request: list[Any]) -> list[Any]:
        """The reply, which is of one of the two forms that don't end the program."""
        if self.end is not None:
            raise self.end
        try:
            reply: list[Any] = self._exchange(request)
        except Unfinished as end:
            self._stop(*end.args)
        except WireError as error:
            self._stop("wrong", f"the program sent {error}")
        match reply:
            case ["value", _] | ["raised", str(), str(), str()]:
                pass
            case [str(kind), str(text)] if kind in _ENDS:
                verdict, told = _ENDS[kind]
                self._stop(verdict, told + text[:DETAIL_LIMIT])
            case _:
                self._stop("wrong", "the program sent what is no reply")
        return reply

    def _stop(self, verdict: str, detail: str) -> NoReturn:
        self.end = Unfinished(verdict, detail)
        raise self.end


class Proxy:
    """A name of the program's in the tests: calling it calls the program's function of that name."""

    def __init__(self, program: Program, name: str) -> None:
        self._program, self.__name__ = program, name

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._program.call(self.__name__, *arguments, **keywords)

    def __bool__(self) -> bool:
        raise TypeError(f"{self.__name__} is a function of the program's; the tests can only call it")

    def __eq__(self, other: object) -> bool:
        return self.__bool__()

    __hash__ = None  # type: ignore[assignment]


def check(item: Mapping[str, Any], exchange: Callable[[list[Any]], Any]) -> dict[str, str]:
    """The verdict {"verdict", "detail"} on an item {"program", "tests", "names": [str] | None, "support"}.

    `support` is executed in front of the tests, here, and not by the program: helpers that a program must not replace.
    `names` are the program's; None: whatever the tests use and don't define.
    """
    program = Program(exchange)
    try:
        support = compile(item["support"], "support", "exec", dont_inherit=True)
        tests = compile(item["tests"], "tests", "exec", dont_inherit=True)
        names = item["names"] if item["names"] is not None else free_names(item["tests"])
    except (SyntaxError, ValueError, RecursionError) as error:
        return _verdict("crashed", f"the tests don't compile: {_text(error)}")
    try:
        program.load(item["program"])
        scope: dict[str, Any] = {"__name__": "tests"}
        exec(support, scope)
        scope.update({name: Proxy(program, name) for name in names})
        exec(tests, scope)
    except Unfinished as end:
        return _verdict(*end.args)
    except MemoryError:
        return _verdict("crashed", "the tests ran out of memory")
    except AssertionError as error:
        if not program.raised.startswith("AssertionError"):
            return _verdict("wrong", f"failed: {_line(error, item['tests'])}")
        return _verdict("wrong", f"the program raised {program.raised}")
    except Exception as error:
        what = f"{type(error).__name__}: {_text(error)}"
        if error is program.error:
            return _verdict("wrong", f"the program raised {program.raised}")
        return _verdict("wrong", f"{what} in {_line(error, item['tests'])}")
    except BaseException as error:
        return _verdict("crashed", f"the tests raised {type(error).__name__}")
    if program.end is not None:  # whatever the tests made of it
        return _verdict(*program.end.args)
    if not program.calls:
        return _verdict("crashed", "the tests never call the program")
    return _verdict("right", "")


def free_names(tests: str) -> list[str]:
    """Names that the tests use, and that neither they nor Python define."""
    used: set[str] = set()
    bound = set(dir(builtins))
    tables = [symtable.symtable(tests, "tests", "exec")]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        for symbol in table.get_symbols():
            if symbol.is_global():
                (bound if symbol.is_assigned() or symbol.is_imported() else used).add(symbol.get_name())
    return sorted(used - bound)


def ended(code: int | None) -> Unfinished:
    """How a program's process ended: its exit code, a signal's negative, or None where it has only closed its pipes."""
    if code is None:
        return Unfinished("wrong", "the program closed its pipes before its tests were done")
    if code >= 0:
        return Unfinished("wrong", f"the program ended itself (exit status {code}) before its tests were done")
    known = {number.value: number.name for number in signal.Signals}
    return Unfinished("crashed", f"the program was killed by {known.get(-code, f'signal {-code}')}")


def check_over_stdio() -> None:
    """A checker whose pipes to the program are carried by whoever started it (the docker backend).

    On descriptor 0: the item, then ["reply", reply]..., or ["end", verdict, detail] where there will be none. On
    descriptor 1: ["ready"], ["ask", request]..., then ["verdict", {...}].
    """
    out = os.dup(1)
    silence(1, 2)

    def exchange(request: list[Any]) -> Any:
        send(out, ["ask", request])
        reply = receive(0, MESSAGE_LIMIT + 100)
        if reply[0] == "end":
            raise Unfinished(*reply[1:])
        return reply[1]

    send(out, ["ready"])
    item = receive(0, ITEM_LIMIT)
    send(out, ["verdict", check(item, exchange)])


def serve_over_stdio() -> None:
    """The program's process behind descriptors 0 and 1 (the docker backend)."""
    serve(os.dup(0), os.dup(1))


def silence(*descriptors: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(null, descriptor)
    os.close(null)


def _exception(reply: list[Any]) -> str:
    return f"{reply[2][:100]}: {reply[3][:DETAIL_LIMIT]}"


def _line(error: BaseException, tests: str) -> str:
    """The line of the tests at which `error` left them."""
    number, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "tests":
            number = trace.tb_lineno
        trace = trace.tb_next
    lines = tests.splitlines()
    return lines[number - 1].strip()[:DETAIL_LIMIT] if 0 < number <= len(lines) else "the tests"


def _verdict(verdict: str, detail: str) -> dict[str, str]:
    return {"verdict": verdict, "detail": detail[:DETAIL_LIMIT]}
