"""N-grams of token ids as 64-bit hashes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def ngram_hashes(ids: ArrayLike, n: int) -> NDArray[np.uint64]:
    """uint64 [max(0, len(ids) - n + 1)]: a hash of every run of n ids, in order.

    Equal runs have equal hashes; different ones differ but for a chance of about (number of runs)^2 / 2^65.
    """
    mixed = _mixed(np.asarray(ids).astype(np.uint64))
    count = max(0, len(mixed) - n + 1)
    hashes = np.zeros(count, dtype=np.uint64)
    for offset in range(n):
        hashes = _mixed(hashes * _MULTIPLIER + mixed[offset : offset + count])
    return hashes


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64: a bijection in which every input bit changes about half of the output bits."""
    values = values + _MULTIPLIER
    values = (values ^ (values >> np.uint64(30))) * _MIX[0]
    values = (values ^ (values >> np.uint64(27))) * _MIX[1]
    return values ^ (values >> np.uint64(31))
