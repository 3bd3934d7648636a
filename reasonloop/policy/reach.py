"""The lengths at which a model begins to compute something else: windows, chunks, an indexer's choice, original lengths.

A check at 20 tokens sees nothing of a window of 4096. It sees everything once the model says 4 where it said 4096.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

NAMES = re.compile(r"window|chunk_size|chunk_length|local_attention|topk|block_size|local_blocks|floor")
OTHERS = re.compile(
    r"pattern|layer|group|moe|method|expert|mamba|feed_forward|lm_head|^chunk_size|conv|vision|image|time_step"
)
"""Names that look like it and say something else"""
SHORT = 4
"""The first of the numbers that stand in for a model's own"""
ORIGINAL = "original_max_position_embeddings"
BY_LENGTH = ("longrope", "dynamic")
"""transformers' rotary embeddings whose angles depend on the longest sequence of a call"""


class Reaches:
    """What a model's numbers are while they are shortened."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        """What the configuration calls them, and what it says"""
        self._short: dict[int, int] = {}

    def short(self, name: str, value: int) -> int:
        """What stands in for it: the same for the same number, each number another one."""
        if "block" in name and "size" not in name:
            return 1
        if "topk" in name or value <= SHORT:
            return min(value, SHORT)
        return self._short.setdefault(value, SHORT + len(self._short))

    def real(self, window: int | None) -> int | None:
        """The model's own number that a shortened one stands for."""
        return next((value for value, short in self._short.items() if short == window), window)


@contextmanager
def shortened(model: Any) -> Iterator[Reaches]:
    """The model with small numbers in the place of its own, in its configurations and modules, until the block is left.

    Rotary embeddings that change with the longest sequence of a call stay within their original length: streams and slots
    are divided there (`policy.rotary`).
    """
    found, changed = Reaches(), list[tuple[Any, str, int]]()
    configs = {id(config): config for config in _configurations(model)}
    try:
        for config in configs.values():
            for name, value in list(vars(config).items()):
                if _is_reach(name, value) and found.short(name, value) != value:
                    found.names[name] = value
                    changed.append((config, name, value))
                    setattr(config, name, found.short(name, value))
        for rope in [rope for config in configs.values() for rope in ropes(config)]:
            if isinstance(original := rope.get(ORIGINAL), int):
                changed.append((rope, ORIGINAL, original))
                rope[ORIGINAL] = max(original, 1 << 16) if rope.get("rope_type") in BY_LENGTH else min(original, SHORT)
        own = set(found.names.values())
        for module in model.modules():
            for name, value in list(vars(module).items()):
                if _is_reach(name, value) and value in own:
                    changed.append((module, name, value))
                    setattr(module, name, found.short(name, value))
        yield found
    finally:
        for owner, name, value in reversed(changed):
            if isinstance(owner, dict):
                owner[name] = value
            else:
                setattr(owner, name, value)


def _is_reach(name: str, value: object) -> bool:
    return type(value) is int and value > 1 and bool(NAMES.search(name)) and not OTHERS.search(name)


def _configurations(model: Any) -> Iterator[Any]:
    yield model.config.get_text_config()
    for module in model.modules():
        if (config := vars(module).get("config")) is not None:
            yield config


def ropes(config: Any) -> list[dict[str, Any]]:
    """The rotary embeddings that a configuration names: one, or one for each kind of layer."""
    named = getattr(config, "rope_parameters", None) or {}
    inner = [value for value in named.values() if isinstance(value, dict)]
    return [rope for rope in (named, *inner) if "rope_type" in rope]
