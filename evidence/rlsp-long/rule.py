"""A rule as the judge of effort: how many different calculations a response tries, whether or not they lead anywhere."""

from __future__ import annotations

import re

STEP = re.compile(r"\d+ [-+*/] \d+")
MANY = 24
"""Calculations with which the score is 1"""


def effort(problem: str, response: str) -> float:
    """In [0, 1]; the same calculation again earns nothing, nor does what stands in the problem."""
    return min(1.0, len(set(STEP.findall(response))) / MANY)
