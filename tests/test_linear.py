"""Nothing that reads a model's text takes more than linear time: regular expressions are proved, the rest is counted."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from backtracking import Use, superlinear
from house import ROOT, modules, tree

from reasonloop.analysis.lexicon import LEXICON
from reasonloop.verify.answers import _kept_forms

METHODS = ("match", "fullmatch", "search", "finditer", "findall", "sub", "subn", "split")
MADE_ELSEWHERE = {
    "reasonloop.analysis.behaviours._matches": [entry.pattern for entry in LEXICON],
    "reasonloop.verify.answers._kept_forms": [_kept_forms().pattern],
    "reasonloop.imports.rows.step": [],  # of the names of files, which have 255 bytes
    "reasonloop.imports.rows.within": [],
}
"""Patterns that are no constants where they are used"""
Site = tuple[str, str, int, Use]
"""(where, pattern, flags, use)"""


@cache
def patterns() -> list[Site]:
    found: list[Site] = []
    for name, path in modules(ROOT).items():
        if "scaffold" in path.parts:
            continue
        found += _inline(name, tree(path))
    uses = _uses()
    for name in modules(ROOT):
        for variable, where, pattern in _constants(name):
            for use in sorted(uses.get((name, variable), {"search", "full"})):
                found.append((f"{where} ({use})", pattern.pattern, pattern.flags, use))
    return list(dict.fromkeys(found))


def _constants(module: str) -> Iterator[tuple[str, str, re.Pattern[str]]]:
    """(variable, where in it, pattern) of a module's own."""
    source = tree(modules(ROOT)[module])
    made = {n.id for s in source.body for n in ast.walk(s) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    if not made or "re." not in ast.unparse(source):
        return
    loaded = importlib.import_module(module)
    for variable in sorted(made & set(vars(loaded))):
        for where, pattern in _within(vars(loaded)[variable], f"{module}.{variable}"):
            yield variable, where, pattern


def _within(value: Any, where: str) -> Iterator[tuple[str, re.Pattern[str]]]:
    if isinstance(value, re.Pattern):
        yield where, value
    elif isinstance(value, tuple | list | dict):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _within(item, f"{where}[{key}]")


def _use(method: str, arguments: int) -> Use:
    if method == "fullmatch":
        return "full"
    if method == "match":
        return "anywhere" if arguments == 2 else "match"  # with an end, too, the text between is read once
    return "search"


def _uses() -> dict[tuple[str, str], set[Use]]:
    """(module, variable) -> how it is used, wherever that is; left out where it is not called by its name."""
    found: dict[tuple[str, str], set[Use]] = {}
    for name, path in modules(ROOT).items():
        source = tree(path)
        origin = {
            alias.asname or alias.name: (node.module, alias.name)
            for node in ast.walk(source)
            if isinstance(node, ast.ImportFrom) and node.module
            for alias in node.names
        }
        called = {
            id(node.func.value): (node.func.attr, len(node.args))
            for node in ast.walk(source)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in METHODS
        }
        texts = {id(n.value) for n in ast.walk(source) if isinstance(n, ast.Attribute) and n.attr == "pattern"}
        for node in ast.walk(source):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and id(node) not in texts:
                uses = found.setdefault(origin.get(node.id, (name, node.id)), set())
                uses |= {_use(*called[id(node)])} if id(node) in called else {"search", "full"}
    return found


def _inline(module: str, source: ast.Module) -> Iterator[Site]:
    """re.sub("...", ...) and the like, within functions."""
    for function in ast.walk(source):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if not (isinstance(node.func.value, ast.Name) and node.func.value.id == "re"):
                continue
            if node.func.attr not in (*METHODS, "compile"):
                continue
            where = f"{module}.{function.name}"
            use: Use = "search" if node.func.attr == "compile" else _use(node.func.attr, 1)
            if isinstance(node.args[0], ast.Constant):
                yield f"{where} {node.args[0].value!r}", node.args[0].value, 0, use
            else:
                assert where in MADE_ELSEWHERE, f"{where}: a pattern that is no constant; see MADE_ELSEWHERE"
                for pattern in MADE_ELSEWHERE[where]:
                    yield f"{where} {pattern!r}", pattern, 0, use


def test_every_regular_expression_is_linear_by_construction() -> None:
    slow = [
        f"{where}: {again!r} again and again, with {pattern!r}"
        for where, pattern, flags, use in patterns()
        if (again := superlinear(pattern, flags, use)) is not None
    ]
    assert not slow, "\n".join(slow)
    assert len(patterns()) > 250
