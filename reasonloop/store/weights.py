"""Importance weights of experts: the weighted form of RFT (RLoop, arXiv 2511.04285)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def expert_weights(
    logprob_start: Sequence[float] | np.ndarray,
    logprob_behaviour: Sequence[float] | np.ndarray,
    problem_ids: Sequence[str],
    clip: float,
) -> np.ndarray:
    """w = min(pi_start(y|x) / q(y|x), clip), then scaled so that every problem's weights have mean 1.

    Both log-probs are those of whole responses, [experts], nats: summed over the response's tokens; q is the policy
    that sampled it. Returns float64 [experts]. Truncation comes before scaling, so that a final weight may exceed
    `clip` where all of a problem's raw weights are small.

    All is done on logarithms: long responses have ratios far outside of float64 (e^-1000, say), and what counts are
    the ratios within a problem. A problem whose responses are all impossible under pi_start (log-prob -inf) gets equal
    weights. Raises ValueError for lengths that differ, a NaN, a behaviour log-prob that isn't finite, or `clip` <= 0.
    """
    start = np.asarray(logprob_start, dtype=np.float64)
    behaviour = np.asarray(logprob_behaviour, dtype=np.float64)
    if start.ndim != 1 or start.shape != behaviour.shape or len(problem_ids) != len(start):
        raise ValueError(f"lengths differ: {start.shape}, {behaviour.shape}, {len(problem_ids)} problem ids")
    if not clip > 0:
        raise ValueError(f"clip is {clip}, expected a number above 0")
    if not np.isfinite(behaviour).all() or np.isnan(start).any() or np.isposinf(start).any():
        raise ValueError("log-probs must be finite numbers (pi_start's may be -inf)")
    if not len(start):
        return np.empty(0)

    names, problem = np.unique(problem_ids, return_inverse=True)
    log_weight = np.minimum(start - behaviour, np.log(clip))
    largest = np.full(len(names), -np.inf)
    np.maximum.at(largest, problem, log_weight)
    hopeless = np.isneginf(largest)
    weight = np.where(hopeless[problem], 1.0, np.exp(log_weight - np.where(hopeless, 0.0, largest)[problem]))
    mean = np.bincount(problem, weights=weight) / np.bincount(problem)
    return weight / mean[problem]
