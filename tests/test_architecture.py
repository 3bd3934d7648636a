"""The house keeps to its rules: rooms in an order, no circles, no torch below the tensors, and a limit to what grows."""

from __future__ import annotations

import subprocess
import sys

import house

ORDER = (
    ("errors", "text", "version"),
    ("machine",),
    ("records", "files", "own", "hub"),
    ("written",),
    ("config", "kernels", "verify"),
    ("tasks",),
    ("policy", "store", "track"),
    ("learner", "engine", "rewards", "bundled"),
    ("ranks",),
    ("runs",),
    ("evaluation", "methods", "bench", "imports"),
    ("stages", "analysis", "planning"),
    ("report",),
    ("execute", "compare", "exchange"),
    ("api", "scaffold", "usage", "study"),
    ("commands",),
    ("cli",),
    ("__init__", "__main__"),
)
"""Rooms from the ground up: each imports lower ones alone. `__init__` is the face of the house: it says where the names of
the Python API are, and imports them when they are asked for."""

MOST_LINES, MOST_FUNCTION_LINES, MOST_PARAMETERS = 400, 60, 7
EXCEPTIONS = {
    "policy.attention.attention_forward": "its parameters are those that transformers calls an attention function with",
}
"""Functions that may be larger, each with its reason"""

WITHOUT_TORCH = (
    "errors", "text", "machine", "records", "files", "written", "own", "hub", "config", "verify", "tasks", "store", "track",
    "runs", "methods", "evaluation", "analysis", "planning", "report", "compare", "execute", "study", "scaffold", "usage",
    "api", "commands", "cli", "__init__", "imports", "exchange",
)  # fmt: skip
"""Rooms that can be imported, every file of them, without torch being loaded"""
TENSORS = {"evaluation.evaluate", "api.keeping", "api.learner"}
"""Files in them that may load it: what samples, and what learns"""


def test_rooms_import_lower_ones_alone() -> None:
    floor = {room: i for i, rooms in enumerate(ORDER) for room in rooms}
    graph = house.rooms(house.imported(house.ROOT))
    assert graph.keys() == floor.keys()
    assert [(room, target) for room in graph for target in graph[room] if floor[target] >= floor[room]] == []


def test_no_files_import_one_another() -> None:
    assert house.circles(house.imported(house.ROOT)) == []


def test_files_and_functions_are_small() -> None:
    modules = house.modules(house.ROOT)
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules.items()}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}
    large = {
        function.name.removeprefix("reasonloop."): (function.lines, function.parameters)
        for function in house.functions(house.ROOT)
        if function.lines > MOST_FUNCTION_LINES or function.parameters > MOST_PARAMETERS
    }
    assert large.keys() == EXCEPTIONS.keys(), large


def test_methods_are_known_in_their_own_room_alone() -> None:
    assert house.method_names(house.ROOT) == 0


def test_no_torch_below_the_tensors() -> None:
    """In one process, which imports every file of the rooms that need none."""
    chosen = [
        name
        for name in house.modules(house.ROOT)
        if house.room(name) in WITHOUT_TORCH and name.removeprefix("reasonloop.") not in TENSORS
    ]
    code = (
        f"import importlib, sys\nfor name in {chosen!r}:\n"
        "    importlib.import_module(name)\n    assert 'torch' not in sys.modules, name"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
