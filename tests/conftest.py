"""Shared by all tests. Nothing here imports torch before a test asks for a policy."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

from reasonloop import own
from reasonloop.machine import python

os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks the real hub: those of the client have one of their own
# a machine that is busy with something else is no failure
# new examples are searched for at every desk; a check of a change must not fail for what the change has not touched
settings.register_profile("reasonloop", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("reasonloop")


def _searched_as_before() -> Iterator[None]:
    """Where a test has had Python look for modules of the user's own, the next one does not."""
    path, added, beside = [*sys.path], {*python.added}, [*own._beside]
    yield
    sys.path[:], own._beside[:] = path, beside
    python.added.clear()
    python.added.update(added)


searched_as_before = pytest.fixture(_searched_as_before, autouse=True)
searched_as_before_the_module = pytest.fixture(_searched_as_before, autouse=True, scope="module")


@pytest.fixture(scope="module")
def policy() -> Any:
    """A tiny random Llama that the module's tests share: they must not train it."""
    from tiny_models import tiny_policy

    return tiny_policy("llama")
