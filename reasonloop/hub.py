"""The Hugging Face hub's client as models and data sets use it: quiet, and without waiting where there is no network."""

from __future__ import annotations

import logging
from socket import getaddrinfo
from urllib.parse import urlsplit
from urllib.request import getproxies


def offline() -> str:
    """Why nothing is to be asked of the hub: HF_HUB_OFFLINE is set, or the network doesn't know the hub's address; empty
    where it can be asked. Silences the client's log: what goes wrong is told by who asks."""
    from huggingface_hub import constants

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    return "" if _has_address(constants.ENDPOINT) else f"the network here knows no {constants.ENDPOINT}"


def _has_address(endpoint: str) -> bool:
    """Whether the network knows the hub's name, or a proxy may."""
    try:
        return bool(getproxies() or getaddrinfo(urlsplit(endpoint).hostname, None))
    except OSError:
        return False
