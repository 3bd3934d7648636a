"""The package's modules, loaded once more with their operations counted: what a machine's load doesn't change.

    with counted("reasonloop.verify", "reasonloop.tasks") as work:
        from reasonloop.verify.extract import extract_answer
        extract_answer(text, "final")
        print(work.done)

An operation is a call, a turn of a loop, or a character or item of what is made, cut out, joined, searched or matched. A
regular expression counts as many as the text that it reads: that it takes no more is proved elsewhere (`backtracking`).
"""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import CodeType, ModuleType
from typing import Any

_NAME = "__work__"
_READ = frozenset(
    ("find", "rfind", "index", "rindex", "count", "split", "rsplit", "partition", "rpartition", "replace")
)
_MOVES = frozenset(("insert", "remove", "index", "count", "copy", "sort"))
"""Methods that read a whole text, and a whole list; others are counted by what they return"""


class Work:
    """What has been done so far."""

    def __init__(self) -> None:
        self.done = 0

    def made(self, value: Any) -> Any:
        self.done += 1 + (len(value) if isinstance(value, str | bytes | list | tuple) else 0)
        return value

    def each(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self.done += 1
            yield item

    def method(self, owner: Any, name: str, *arguments: Any, **keywords: Any) -> Any:
        value = getattr(owner, name)(*arguments, **keywords)
        if isinstance(owner, re.Pattern):
            self._matched(name, value, arguments)
        elif isinstance(owner, str) and name in _READ:
            self._read(owner, name, value, arguments)
        elif isinstance(owner, list) and (name in _MOVES or (name == "pop" and arguments)):
            self.done += len(owner)
        return self.made(value)

    def _matched(self, name: str, found: Any, arguments: Sequence[Any]) -> None:
        text, *rest = arguments[1:] if name in ("sub", "subn") else arguments
        start, end = 0, len(text)
        if name in ("match", "search", "fullmatch"):
            start, end = (*rest, *(0, end)[len(rest) :])
        if name in ("match", "search") and found:
            end = found.end()
        elif name == "match":  # how far it looked isn't told: proved for all places together
            end = start
        self.done += max(0, min(end, len(text)) - start)

    def _read(self, text: str, name: str, found: Any, arguments: Sequence[Any]) -> None:
        start, end = 0, len(text)
        if name in ("find", "index", "count") and len(arguments) > 1:
            start = arguments[1]
            end = min(end, arguments[2]) if len(arguments) > 2 else end
        if name in ("find", "index") and found >= 0:
            end = found
        self.done += max(0, end - start)


class _Counting(ast.NodeTransformer):
    """Has expressions within functions go through `Work`."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.body = [self.visit(statement) for statement in node.body]
        return node

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AnnAssign:
        node.value = self.visit(node.value) if node.value else None
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        node.body = [self.visit(s) if isinstance(s, ast.FunctionDef | ast.ClassDef) else s for s in node.body]
        return node

    def visit_Module(self, node: ast.Module) -> ast.Module:
        node.body = [self.visit(s) if isinstance(s, ast.FunctionDef | ast.ClassDef) else s for s in node.body]
        return node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        function = node.func
        own = isinstance(function, ast.Attribute) and not (
            isinstance(function.value, ast.Call) and getattr(function.value.func, "id", "") == "super"
        )
        if own and isinstance(function, ast.Attribute):
            return _call("method", [function.value, ast.Constant(function.attr), *node.args], node.keywords)
        if getattr(function, "id", "") in ("super", "locals"):
            return node
        return _call("made", [node])

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        self.generic_visit(node)
        return _call("made", [node]) if isinstance(node.ctx, ast.Load) and isinstance(node.slice, ast.Slice) else node

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        return _call("made", [node])

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.expr:
        self.generic_visit(node)
        return _call("made", [node])

    def visit_FormattedValue(self, node: ast.FormattedValue) -> ast.FormattedValue:
        node.value = self.visit(node.value)
        return node

    def visit_For(self, node: ast.For) -> ast.For:
        self.generic_visit(node)
        node.iter = _call("each", [node.iter])
        return node

    def visit_comprehension(self, node: ast.comprehension) -> ast.comprehension:
        self.generic_visit(node)
        node.iter = _call("each", [node.iter])
        return node

    def visit_While(self, node: ast.While) -> ast.While:
        self.generic_visit(node)
        node.body.insert(0, ast.Expr(_call("made", [ast.Constant(0)])))
        return node


def _call(name: str, arguments: list[ast.expr], keywords: list[ast.keyword] | None = None) -> ast.Call:
    counter = ast.Attribute(ast.Name(_NAME, ast.Load()), name, ast.Load())
    return ast.Call(counter, arguments, keywords or [])


class _Loader(importlib.machinery.SourceFileLoader):
    work: Work

    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> CodeType:  # type: ignore[override]
        tree = ast.fix_missing_locations(_Counting().visit(ast.parse(data)))
        return compile(tree, path, "exec", dont_inherit=True, optimize=_optimize)

    def get_code(self, fullname: str) -> CodeType:  # nothing of it is kept, or taken from what is
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__[_NAME] = self.work
        super().exec_module(module)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, work: Work, rooms: Sequence[str]) -> None:
        self.work, self.rooms = work, tuple(rooms)

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if not _of(fullname, self.rooms):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
            spec.loader.work = self.work
        return spec


def _of(name: str, rooms: Sequence[str]) -> bool:
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


@contextmanager
def counted(*rooms: str) -> Iterator[Work]:
    """Within the block an import of a module of these rooms gets one that counts; behind it they are what they were."""
    kept = {name: module for name, module in sys.modules.items() if _of(name, rooms)}
    for name in kept:
        del sys.modules[name]
    work = Work()
    finder = _Finder(work, rooms)
    sys.meta_path.insert(0, finder)
    try:
        yield work
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if _of(name, rooms)]:
            del sys.modules[name]
        sys.modules.update(kept)
        for name, module in kept.items():
            parent, _, last = name.rpartition(".")
            if parent in sys.modules:
                setattr(sys.modules[parent], last, module)
