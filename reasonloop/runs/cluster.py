"""A Ray cluster: connected to, and what it has."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from contextlib import chdir
from importlib.util import find_spec
from typing import Any

from reasonloop.errors import InputError, first_line
from reasonloop.machine.python import HOME

PIP = "pip install 'reasonloop[ray]'"
ANSWER = 10.0
"""Seconds within which a cluster has to answer"""


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

        _expect_answer(address)
        self.ray: Any = ray
        self._ours = not ray.is_initialized()
        if self._ours:
            try:
                with chdir(HOME):  # Ray's workers look first where their driver is: not among anybody's files
                    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            except Exception as error:  # Ray's own errors, and those of what it asks
                raise _unreachable(address, error) from None

    def has(self, needed: Mapping[str, float]) -> bool:
        """Whether there is a machine with as much as that (CPU, GPU) in all, free or not."""
        nodes = (node["Resources"] for node in self.ray.nodes() if node["Alive"])
        return any(all(node.get(name, 0.0) >= count for name, count in needed.items()) for node in nodes)

    def close(self) -> None:
        if self._ours:
            self.ray.shutdown()


def _expect_answer(address: str) -> None:
    """Raises InputError where nobody listens at HOST:PORT: Ray itself would ask for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), ANSWER).close()
        except OSError as error:
            raise _unreachable(address, error) from None


def _unreachable(address: str, error: Exception) -> InputError:
    return InputError(
        f"scale.address = {address!r}: no Ray cluster can be reached there ({first_line(error)}); expected one started with "
        '`ray start --head`, or address = "local" for this machine alone, or "" for none'
    )
