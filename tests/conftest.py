"""Shared by all tests. Nothing here imports torch before a test asks for a policy."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks the real hub: those of the client have one of their own
# a machine that is busy with something else is no failure
# new examples are searched for at every desk; a check of a change must not fail for what the change has not touched
settings.register_profile("reasonloop", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("reasonloop")


@pytest.fixture(scope="module")
def policy() -> Any:
    """A tiny random Llama that the module's tests share: they must not train it."""
    from tiny_models import tiny_policy

    return tiny_policy("llama")
