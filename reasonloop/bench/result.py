"""A result file of a measurement: JSON that begins with the machine and the versions. Free of torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reasonloop.config import Recipe
from reasonloop.runs.ran_on import describe_machine


def machine_and_versions(threads: int) -> tuple[dict[str, Any], dict[str, str]]:
    """The "machine" and "versions" of a result file."""
    ran_on = describe_machine(Recipe(threads=threads))
    machine = {key: ran_on[key] for key in ("processor", "compiler", "kernels", "cores", "threads", "platform")}
    return machine, {"python": ran_on["python"], **ran_on["versions"]}


def write(result: dict[str, Any], file: Path) -> None:
    file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
