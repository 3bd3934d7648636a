"""Generalised advantage estimation (Schulman et al., arXiv 1506.02438) over the tokens of a response."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def token_rewards(
    reward: float, behaviour: np.ndarray, reference: np.ndarray | None = None, kl_coef: float = 0.0
) -> np.ndarray:
    """r_t = R 1[t = T] - beta (log pi_old(y_t) - log pi_ref(y_t)) (RLSP, arXiv 2502.06773): float64 [T].

    `behaviour` and `reference` are log-probs of the response's tokens, [T] nats.
    """
    rewards = np.zeros(len(behaviour))
    if reference is not None:
        rewards -= kl_coef * (behaviour.astype(np.float64) - reference)
    rewards[-1] += reward
    return rewards


def gae(rewards: np.ndarray, values: np.ndarray, lam: float) -> tuple[np.ndarray, np.ndarray]:
    """Advantages and returns of one response, float64 [T] each, from its token rewards and values [T].

    delta_t = r_t + V_{t+1} - V_t, with V after the last token 0: a response ends there, also one that was cut off.
    A_t = delta_t + lam A_{t+1}; the critic's target is A_t + V_t. Tokens are not discounted.
    """
    values = values.astype(np.float64)
    deltas = rewards + np.append(values[1:], 0.0) - values
    advantages = np.zeros(len(deltas))
    following = 0.0
    for t in reversed(range(len(deltas))):
        following = deltas[t] + lam * following
        advantages[t] = following
    return advantages, advantages + values


def whiten(advantages: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Mean 0 and standard deviation 1 over all tokens of the rollout batch; constant advantages become 0."""
    flat = np.concatenate(advantages)
    return [(one - flat.mean()) / (flat.std() + 1e-8) for one in advantages]
