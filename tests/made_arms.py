"""What a method writes into its evaluations and metrics lines at birth, without a run: for run folders made by tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reasonloop import config
from reasonloop.study.earlier import Recorder
from reasonloop.study.earlier import recorded as recorded_of


def recorded(recipe: Mapping[str, Any]) -> Recorder:
    """`recipe`: as in a TOML file, without what it ran on."""
    return recorded_of(config.parse(dict(recipe), [], "made"))
