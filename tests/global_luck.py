"""The global random states of Python, NumPy and torch."""

from __future__ import annotations

import random

import numpy as np
import torch

Draws = tuple[float, float, float]


def drawn() -> Draws:
    """The next number of each."""
    return random.random(), np.random.random(), float(torch.rand(1))


def seeded() -> Draws:
    """Seeds them; what `drawn` is to give next, if nobody draws in between."""
    _seed()
    expected = drawn()
    _seed()
    return expected


def _seed() -> None:
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
