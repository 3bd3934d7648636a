"""Tests with several processes that learn and sample together, by gloo on a CPU: `make test-ranks`. The plain suite leaves
them out."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    return None if any(Path(__file__).parent.name in argument for argument in config.args) else True
