"""What runs inside: the program, which serves calls, and the checker, which makes them. Standard library only.

Two processes that share nothing but a pair of pipes. The checker executes the tests; a name of the program is a `Proxy`
there, whose call sends the arguments to the program's process and rebuilds what comes back as plain builtins. The program
sees arguments, never an expected value, a test's text or the verdict: it can lie about its own results only.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import gc
import os
import random
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

from reasonloop.verify.sandbox.wire import MESSAGE_LIMIT, WireError, decode, encode, receive, send

DETAIL_LIMIT = 300
"""Characters; as JSON, and escaped, they are still less than a pipe takes at once (`namespaces`)."""
ITEM_LIMIT = 64 << 20
"""Bytes of an item: a program and its tests."""
_RAISED = {
    name: kind
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, UnicodeError | ExceptionGroup)
}


def serve(requests: int, replies: int) -> None:
    """The program's process: execute the program, then answer calls until the checker is gone.

    Requests are ["load", source] and ["call", name, [argument...], {keyword: argument}]; replies are ["value", value],
    ["raised", builtin exception, its own name, text], ["syntax", text], ["type", text] and ["memory"].
    """
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
        reply = ["memory"]
    except WireError as error:
        reply = ["type", str(error)]
    except BaseException as error:  # SystemExit and KeyboardInterrupt are a program's exceptions like any other
        known = next((kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _RAISED), "RuntimeError")
        reply = ["raised", known, type(error).__name__[:100], _text(error)]
    try:
        send(replies, reply)
    except MemoryError:
        send(replies, ["memory"])


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
    """There will be no more values; not an Exception, so that no test can go on after it."""

    def __init__(self, verdict: str, detail: str) -> None:
        super().__init__(verdict, detail)
        self.verdict, self.detail = verdict, detail


class Program:
    """The program as the checker sees it. `exchange` sends a request and returns the reply; it may raise Unfinished."""

    def __init__(self, exchange: Callable[[list[Any]], Any]) -> None:
        self._exchange = exchange
        self.calls = 0
        self.raised = ""
        """The last exception that a call raised"""
        self.end: Unfinished | None = None

    def load(self, source: str) -> None:
        """Execute the program. Raises Unfinished if that fails."""
        reply = self._ask(["load", source])
        if reply[0] == "syntax":
            self._stop("unparseable", f"SyntaxError: {reply[1]}")
        if reply[0] == "raised":
            self._stop("wrong", f"the program raised {_exception(reply)}")

    def call(self, name: str, *arguments: Any, **keywords: Any) -> Any:
        """What the program's function returns. Raises the builtin exception that it raised, or Unfinished."""
        self.calls += 1
        try:
            request = [
                "call",
                name,
                [encode(a, False) for a in arguments],
                {k: encode(v, False) for k, v in keywords.items()},
            ]
        except WireError as error:
            self._stop("crashed", f"the tests pass {error}")
        reply = self._ask(request)
        if reply[0] == "value":
            try:
                return decode(reply[1])
            except WireError as error:
                self._stop("wrong", f"the program sent {error}")
        self.raised = _exception(reply)
        raise _RAISED.get(reply[1], RuntimeError)(reply[3])

    def _ask(self, request: list[Any]) -> list[Any]:
        if self.end is not None:
            raise self.end
        try:
            reply = self._exchange(request)
        except Unfinished as end:
            self.end = end
            raise
        except WireError as error:
            self._stop("wrong", f"the program sent {error}")
        lengths = {"value": 2, "raised": 4, "syntax": 2, "type": 2, "memory": 1}
        if (
            not isinstance(reply, list)
            or not reply
            or not isinstance(reply[0], str)
            or len(reply) != lengths.get(reply[0])
        ):
            self._stop("wrong", "the program sent what is no reply")
        if reply[0] != "value" and not all(isinstance(part, str) for part in reply):
            self._stop("wrong", "the program sent what is no reply")
        if reply[0] == "memory":
            self._stop("crashed", "the program ran out of memory")
        if reply[0] == "type":
            self._stop("wrong", f"the program returned {reply[1][:DETAIL_LIMIT]}")
        return reply

    def _stop(self, verdict: str, detail: str) -> Any:
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
        return _verdict(end.verdict, end.detail)
    except MemoryError:
        return _verdict("crashed", "the tests ran out of memory")
    except AssertionError as error:
        if not program.raised.startswith("AssertionError"):
            return _verdict("wrong", f"failed: {_line(error, item['tests'])}")
        return _verdict("wrong", f"the program raised {program.raised}")
    except Exception as error:
        what = f"{type(error).__name__}: {_text(error)}"
        if program.raised.endswith(what):
            return _verdict("wrong", f"the program raised {what}")
        return _verdict("wrong", f"{what} in {_line(error, item['tests'])}")
    except BaseException as error:
        return _verdict("crashed", f"the tests raised {type(error).__name__}")
    if program.end is not None:  # whatever the tests made of it
        return _verdict(program.end.verdict, program.end.detail)
    if not program.calls:
        return _verdict("crashed", "the tests never call the program")
    return _verdict("right", "")


def free_names(tests: str) -> list[str]:
    """Names that the tests use, and that neither they nor Python define."""
    used: set[str] = set()
    bound = set(dir(builtins))
    for node in ast.walk(ast.parse(tests)):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            bound.add(node.name)
    return sorted(used - bound)


def check_over_stdio() -> None:
    """A checker whose pipes to the program are carried by whoever started it (the docker backend).

    On descriptor 0: the item, then ["reply", reply]..., or ["end", verdict, detail] where there will be none. On
    descriptor 1: ["ready"], ["ask", request]..., then ["verdict", {...}].
    """
    out = os.dup(1)
    os.dup2(2, 1)

    def exchange(request: list[Any]) -> Any:
        send(out, ["ask", request])
        reply = receive(0, MESSAGE_LIMIT + 100)
        if reply[0] == "end":
            raise Unfinished(reply[1], reply[2])
        return reply[1]

    send(out, ["ready"])
    item = receive(0, ITEM_LIMIT)
    send(out, ["verdict", check(item, exchange)])


def serve_over_stdio() -> None:
    """The program's process behind descriptors 0 and 1 (the docker backend)."""
    requests, replies = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    serve(requests, replies)


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
