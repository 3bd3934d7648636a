"""JSON lines on stdin and stdout, for scripts that run in another virtual environment and know nothing of reasonloop."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Any

_out = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # whatever a library prints goes to stderr; stdout is ours


def options() -> dict[str, Any]:
    return json.loads(sys.argv[1])


def ready(*packages: str) -> None:
    """Says that requests are welcome, and which versions will answer."""
    answer({"versions": {name: metadata.version(name) for name in packages}})


def requests() -> Iterator[dict[str, Any]]:
    """Requests until stdin is closed."""
    for line in sys.stdin:
        yield json.loads(line)


def answer(message: dict[str, Any]) -> None:
    _out.write(json.dumps(message) + "\n")
    _out.flush()
