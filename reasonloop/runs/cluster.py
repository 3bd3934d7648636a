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

        _expect_answer(address, _found(address))
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


def _found(address: str) -> str:
    """HOST:PORT of "auto", as Ray finds it: in RAY_ADDRESS, or where the last `ray start` of this machine was."""
    if address != "auto":
        return address
    try:
        from ray._private.services import canonicalize_bootstrap_address

        return canonicalize_bootstrap_address(address) or address
    except ImportError:  # a Ray that keeps it elsewhere
        return os.environ.get("RAY_ADDRESS", address)
    except Exception as error:  # Ray's own errors, and those of what it asks
        raise _unreachable(address, error) from None


def _expect_answer(address: str, found: str) -> None:
    """Raises InputError where nothing at HOST:PORT answers as Ray does: Ray itself would ask for minutes. An address that
    "auto" has found may be of a cluster that is no more."""
    host, _, port = found.rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWER) as connection:
            if os.environ.get("RAY_USE_TLS", "0") == "0":
                connection.sendall(_HELLO)
                if connection.recv(9)[3:4] != _SETTINGS:
                    raise ConnectionError("something else than Ray listens there")
    except TimeoutError:
        raise _unreachable(address, TimeoutError(f"no answer within {ANSWER:g} s"), found) from None
    except OSError as error:
        raise _unreachable(address, error, found) from None


_SETTINGS = b"\x04"
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + _SETTINGS + b"\0\0\0\0\0"
"""How a client of HTTP/2, which Ray speaks, begins; the other side begins with a frame of its settings (RFC 9113, 3.4)"""


def _unreachable(address: str, error: Exception, found: str = "") -> InputError:
    where = "there"
    if found not in ("", address):
        where = f"at {found} (RAY_ADDRESS, or the last `ray start` here, which `ray stop` forgets)"
    return InputError(
        f"scale.address = {address!r}: no Ray cluster can be reached {where}: {first_line(error)}; expected one started "
        'with `ray start --head`, or address = "local" for this machine alone, or "" for none'
    )
