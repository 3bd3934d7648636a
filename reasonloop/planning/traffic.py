"""Bytes between machines in an iteration: explorations that send text, against one RL run over all of them.

Free of torch."""

from __future__ import annotations

ROLLOUT, TOKEN = 60.0, 9.0
"""Bytes of a stored rollout, and of each of its tokens: what segments take, compressed (benchmarks/scale.py counts them)"""
GRADIENT = 4
"""Bytes of a gradient's element: sums are float32"""


def of_branches(branches: int, weights: float, rollouts: float, mean: float) -> tuple[float, float]:
    """Explorations side by side: the iteration's policy goes to each machine once (`weights` bytes), and what was sampled
    comes back. (bytes out, bytes back), of all machines together."""
    return branches * weights, rollouts * (ROLLOUT + TOKEN * mean)


def synchronous(machines: int, trained: int, updates: float) -> float:
    """One RL run with its data spread over the machines, at the least that it needs: in each update the gradients are summed
    by a ring, for which each machine sends 2 (M - 1) / M times their size, and no all-reduce sends less (Patarasuk and Yuan
    2009, J. Parallel Distrib. Comput. 69). Bytes of all machines together. Sharding the weights over machines comes on top,
    and so does sending weights to machines that only sample (`to_samplers`)."""
    return 2 * (machines - 1) * GRADIENT * trained * updates


def to_samplers(samplers: int, weights: float, steps: float) -> float:
    """Weights to machines that only sample, in each step."""
    return samplers * weights * steps
