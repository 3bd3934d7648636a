"""What the package looks like from outside: rooms and floors, circles, long functions, options.

    python tests/house.py                    # this checkout
    python tests/house.py --commit 8679ef3   # and an earlier one beside it

A room is a folder or a file directly in `reasonloop/`. A circle is a group of files that import one another, an arrow up an
import that would have to go for the rooms to have an order; floors are the longest way down through the rooms. Every import
counts, also one inside of a function or for types alone. Lines are those of Python files, all of them.
"""

from __future__ import annotations

import argparse
import ast
import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "reasonloop"
Graph = Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Function:
    name: str
    """module.Class.function"""
    lines: int
    parameters: int
    """Without `self` and `cls`"""


def modules(root: Path) -> dict[str, Path]:
    """The package's files by module name."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(root: Path) -> dict[str, frozenset[str]]:
    """Module -> modules of the package that it imports, wherever in the file."""
    known = modules(root)
    found: dict[str, frozenset[str]] = {}
    for name, path in known.items():
        here = name if path.name == "__init__.py" else name.rpartition(".")[0]
        targets: set[str] = set()
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Import):
                targets.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    up = here.split(".")[: len(here.split(".")) - node.level + 1]
                    base = ".".join([*up, *([base] if base else [])])
                targets.update(f"{base}.{alias.name}" for alias in node.names)
        owners = {target if target in known else target.rpartition(".")[0] for target in targets}
        found[name] = frozenset(owner for owner in owners if owner in known and owner != name)
    return found


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def rooms(imports: Graph) -> dict[str, frozenset[str]]:
    """Room -> rooms that it imports."""
    found: dict[str, set[str]] = {}
    for module, targets in imports.items():
        found.setdefault(room(module), set()).update(room(target) for target in targets if room(target) != room(module))
    return {name: frozenset(targets) for name, targets in found.items()}


def circles(graph: Graph) -> list[frozenset[str]]:
    """Groups of nodes that reach one another."""
    reach = {node: _reachable(graph, node) for node in graph}
    groups = {
        frozenset(other for other in reach[node] if node in reach[other]) for node in graph if node in reach[node]
    }
    return sorted(groups, key=sorted)


def _reachable(graph: Graph, start: str) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for target in graph.get(waiting.pop(), ()):
            if target not in found:
                found.add(target)
                waiting.append(target)
    return found


def arrows_up(graph: Graph) -> int:
    """The fewest imports between rooms without which they would have an order."""
    total = 0
    for group in circles(graph):
        orders = permutations(sorted(group)) if len(group) < 9 else [tuple(sorted(group))]
        total += min(
            sum(order.index(target) > order.index(name) for name in order for target in graph[name] & group)
            for order in orders
        )
    return total


def floors(graph: Graph) -> int:
    """Rooms on the longest way down."""

    @cache
    def height(name: str) -> int:
        return 1 + max((height(target) for target in graph[name] if name not in _reachable(graph, target)), default=0)

    return max(map(height, graph))


def functions(root: Path) -> Iterator[Function]:
    for module, path in modules(root).items():
        yield from _functions(tree(path), module)


def _functions(node: ast.AST, prefix: str) -> Iterator[Function]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            every = [*child.args.posonlyargs, *child.args.args, *child.args.kwonlyargs]
            own = [one for one in every if one.arg not in ("self", "cls")]
            name = f"{prefix}.{child.name}"
            yield Function(name, (child.end_lineno or child.lineno) - child.lineno + 1, len(own))
            yield from _functions(child, name)
        else:
            yield from _functions(child, f"{prefix}.{child.name}" if isinstance(child, ast.ClassDef) else prefix)


def options(root: Path) -> int:
    """Options of a recipe, without those that belong to a task or an engine: its documented ones, a table row each."""
    reference = (root / "docs" / "recipes.md").read_text(encoding="utf-8")
    return sum(line.startswith("| `") for line in reference.splitlines())


def method_names(root: Path) -> int:
    """Comparisons of a recipe's method with a name, outside of their room."""
    count = 0
    for name, path in modules(root).items():
        if room(name) not in ("methods", "recipes"):
            for node in ast.walk(tree(path)):
                if isinstance(node, ast.Compare):
                    count += any("method" in ast.unparse(side) for side in [node.left, *node.comparators]) and any(
                        isinstance(one, ast.Constant) and one.value in ("rl", "sft", "rloop", "rlsp")
                        for side in [node.left, *node.comparators]
                        for one in ast.walk(side)
                    )
    return count


def measured(root: Path) -> dict[str, str]:
    imports = imported(root)
    graph = rooms(imports)
    every = list(functions(root))
    longest, widest = max(every, key=lambda f: f.lines), max(every, key=lambda f: f.parameters)
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in modules(root).values()}
    largest = max(lines, key=lambda path: lines[path])
    return {
        "rooms": str(len(graph)),
        "floors": str(floors(graph)),
        "circles of files": str(len(circles(imports))),
        "arrows up between rooms": str(arrows_up(graph)),
        "longest function": f"{longest.lines} lines ({longest.name.removeprefix(PACKAGE + '.')})",
        "most parameters": f"{widest.parameters} ({widest.name.removeprefix(PACKAGE + '.')})",
        "largest file": f"{lines[largest]} lines ({largest.relative_to(root / PACKAGE)})",
        "comparisons with a method's name elsewhere": str(method_names(root)),
        "options of a recipe": str(options(root)),
        "lines of Python": f"{sum(lines.values()):,}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commit", help="an earlier state to show beside it")
    arguments = parser.parse_args()
    now = measured(ROOT)
    before: dict[str, str] = {}
    if arguments.commit:
        command = ["git", "-C", str(ROOT), "archive", arguments.commit, PACKAGE, "docs/recipes.md"]
        packed = subprocess.run(command, check=True, capture_output=True).stdout
        with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            tar.extractall(folder)  # made by git a moment ago
            before = measured(Path(folder))
    for key, value in now.items():
        sys.stdout.write(f"{key:50} {before.get(key, ''):45} {value}\n")


if __name__ == "__main__":
    main()
