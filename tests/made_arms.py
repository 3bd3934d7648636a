"""What a method writes into its evaluations and metrics lines at birth, without a run: for run folders made by tests."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "evidence"))

from upgrade import Recorder
from upgrade import recorded as recorded_of

from reasonloop import config


def recorded(recipe: Mapping[str, Any]) -> Recorder:
    """`recipe`: as in a TOML file, without what it ran on."""
    return recorded_of(config.parse(dict(recipe), [], "made"))
