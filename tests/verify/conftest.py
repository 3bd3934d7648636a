from __future__ import annotations

from collections.abc import Iterator

import pytest

from reasonloop.verify.sandbox.limits import Limits
from reasonloop.verify.sandbox.sandbox import Sandbox


@pytest.fixture(scope="session")
def shared() -> Iterator[Sandbox]:
    """A sandbox whose deadline leaves time on a busy machine."""
    with Sandbox(Limits(timeout=4.0, memory_mib=256)) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def hasty() -> Iterator[Sandbox]:
    """A sandbox for programs that are to be late."""
    with Sandbox(Limits(timeout=0.6, memory_mib=256)) as sandbox:
        yield sandbox
