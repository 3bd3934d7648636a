"""What a result depends on beside its recipe: versions, processor, compiler, threads."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

from reasonloop.config import Recipe
from reasonloop.kernels import build
from reasonloop.machine import compiler, processor
from reasonloop.machine.launch import launched
from reasonloop.machine.threads import available_cores

PACKAGES = (
    "reasonloop",
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "pyarrow",
    "duckdb",
    "math-verify",
    "peft",
    "bitsandbytes",
)


def describe_machine(recipe: Recipe) -> dict[str, Any]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor.field("model name") or platform.processor() or platform.machine(),
        "compiler": compiler.version(),
        "kernels": build.described(),
        "cores": os.cpu_count() or 1,
        "threads": recipe.threads or available_cores(),
        **({"ranks": launched().world} if launched().world > 1 else {}),
        "versions": versions,
    }
