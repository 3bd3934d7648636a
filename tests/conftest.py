"""Fixtures for the tests of the numerical core. Nothing here imports torch before a test asks for a policy."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(scope="module")
def policy() -> Any:
    """A tiny random Llama that the module's tests share: they must not train it."""
    from tiny_models import tiny_policy

    return tiny_policy("llama")
