"""The extended tests of HumanEval+ and MBPP+: inputs alone, whose expected values the canonical solution gives.

Both are made into test code. The solution runs on the tests' side, where a program doesn't see it. What an assertion
compares (a set of the result, its truth, a float within a tolerance) holds for the extended inputs too, and so do the
types of its arguments, since the files are JSON, which has no tuples.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any

_TESTS = """

def _extended(candidate):
    import copy, json, math
    scope = {{"__name__": "solution"}}
    exec({solution!r}, scope)

    def view(_value):
        return {view}

    def close(a, b):
        if isinstance(a, float) or isinstance(b, float):
            if not (isinstance(a, (int, float)) and isinstance(b, (int, float))):
                return a == b
            return a == b or a != a and b != b or math.isclose(a, b, rel_tol={relative}, abs_tol={absolute})
        if isinstance(a, (list, tuple)) and type(a) is type(b):
            return len(a) == len(b) and all(map(close, a, b))
        if isinstance(a, dict) and isinstance(b, dict):
            return a.keys() == b.keys() and all(close(a[key], b[key]) for key in a)
        return a == b

    def number(text):
        for kind in (int, float, complex):
            try:
                return kind(text)
            except ValueError:
                pass
        return text

    def convert(data, kinds={kinds!r}, outer="list"):
        kind, inner = kinds or (outer, None)
        if kind == "number":
            if isinstance(data, str):
                return number(data)
            kind, inner = outer, None
        if isinstance(data, dict):
            return {{key: convert(value, inner, "list") for key, value in data.items()}}
        if not isinstance(data, list):
            return data
        each = inner if isinstance(inner, list) else [inner] * len(data)
        items = [convert(*pair, "list" if kind == "list" else "tuple") for pair in zip(data, each)]
        return {{"tuple": tuple, "set": set}}.get(kind, list)(items)

    for inputs in json.loads({inputs!r}):
        inputs = convert(inputs)
        expected = view(scope[{entry!r}](*copy.deepcopy(inputs)))
        assert close(view(candidate(*inputs)), expected)

_extended({entry})
"""


def plus_tests(entry: str, solution: str, row: Mapping[str, Any], assertion: str) -> str:
    """Test code that calls `entry` with the row's plus_input and compares with what the solution returns.

    `assertion` is the row's own test code, which shows how results are compared and what the arguments' types are. Raises
    SyntaxError if it is no Python.
    """
    tree = ast.parse(assertion.strip())
    calls = [
        n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == entry
    ]
    view, relative = _view(tree, entry)
    return _TESTS.format(
        solution=solution,
        view=view,
        relative=relative,
        absolute=row.get("atol") or 1e-6,
        kinds=_kinds(calls),
        inputs=json.dumps(row["plus_input"]),
        entry=entry,
    )


def _view(tree: ast.Module, entry: str) -> tuple[str, float]:
    """(expression of `_value`, relative tolerance): what the first assertion compares."""
    test = next((node.test for node in tree.body if isinstance(node, ast.Assert)), None)
    if test is None:
        return "_value", 1e-7
    if isinstance(test, ast.Compare):
        return ast.unparse(_Replace(entry).visit(test.left)), 1e-7
    if isinstance(test, ast.Call) and ast.unparse(test.func) == "math.isclose":
        given = [ast.literal_eval(keyword.value) for keyword in test.keywords if keyword.arg == "rel_tol"]
        return "_value", given[0] if given else 1e-9
    return "bool(_value)", 1e-7


class _Replace(ast.NodeTransformer):
    def __init__(self, entry: str) -> None:
        self._entry = entry

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id == self._entry:
            return ast.Name("_value", ast.Load())
        return self.generic_visit(node)


def _kinds(calls: list[ast.Call]) -> tuple[str, Any]:
    """(kind, kinds of its parts) for the list of arguments: one for each argument, one for all items below that.

    None: what lies deeper than any example is a tuple within tuples, and a list within lists.
    """
    examples: list[list[Any]] = []
    for call in calls:
        try:
            examples.append([_literal(argument) for argument in call.args])
        except (ValueError, TypeError, SyntaxError):
            continue
    width = max(map(len, examples), default=0)
    columns = [[example[i] for example in examples if i < len(example)] for i in range(width)]
    return "list", [_kind(column) for column in columns] or None


def _kind(values: list[Any]) -> tuple[str, Any]:
    if all(isinstance(value, int | float | complex) and not isinstance(value, bool) for value in values):
        return "number", None  # JSON has no complex numbers: they are texts there
    inner = [item for value in values if isinstance(value, list | tuple | set) for item in value]
    inner += [item for value in values if isinstance(value, dict) for item in value.values()]
    kind = next((k.__name__ for k in (tuple, set) if any(isinstance(value, k) for value in values)), "list")
    return kind, _kind(inner) if inner else None


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "set" and not node.keywords:
        return set(_literal(node.args[0])) if node.args else set()
    return ast.literal_eval(node)
