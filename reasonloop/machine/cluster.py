"""A Ray cluster: connected to, and what it has."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from reasonloop.errors import InputError, first_line

PIP = "pip install 'reasonloop[ray]'"


def require_ray(address: str) -> None:
    """Raises InputError where Ray isn't installed."""
    if find_spec("ray") is None:
        raise InputError(f"scale.address = {address!r}: Ray is not installed; expected it after: {PIP}")


class Cluster:
    """The cluster at an address, which this process works with from now on. Raises InputError where there is none."""

    def __init__(self, address: str) -> None:
        require_ray(address)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        self.ray: Any = ray
        self._ours = not ray.is_initialized()
        if self._ours:
            try:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            except Exception as error:  # Ray's own errors, and those of what it asks
                raise InputError(
                    f"scale.address = {address!r}: no Ray cluster can be reached there ({first_line(error)}); expected one "
                    'started with `ray start --head`, or address = "local" for this machine alone, or "" for none'
                ) from None

    def has(self, needed: Mapping[str, float]) -> bool:
        """Whether there is a machine with as much as that (CPU, GPU) in all, free or not."""
        nodes = (node["Resources"] for node in self.ray.nodes() if node["Alive"])
        return any(all(node.get(name, 0.0) >= count for name, count in needed.items()) for node in nodes)

    def close(self) -> None:
        if self._ours:
            self.ray.shutdown()
