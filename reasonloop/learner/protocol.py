"""The door to learners: who trains a policy, and scores with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from reasonloop.config import Sampling
from reasonloop.learner.batch import Example
from reasonloop.learner.losses import Objective
from reasonloop.policy.policy import Policy, Weights

Measured = dict[str, float]
"""What an update measured, by name: means over the tokens that its loss is about where nothing else is said"""


class Learner(Protocol):
    """Trains a policy. Its state is the weights, the optimizer's and some counters."""

    policy: Policy
    """Where its weights are in this process"""
    updates: int
    """Updates done, skipped ones included"""
    skipped: int
    """Updates left out because of non-finite gradients"""

    @property
    def weights(self) -> Weights:
        """As they are now: what an engine loads"""
        ...

    def update(self, examples: Sequence[Example], rate: float, objective: Objective | None = None) -> Measured:
        """One optimizer step on the batch: loss, grad_norm (before clipping), entropy, logprob, k1 (behaviour to current),
        apart (the mean size of their difference; may be left out), kl (k3 to the reference), clip_fraction, tokens,
        learning_rate."""
        ...

    def score(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]], sampling: Sampling) -> list[np.ndarray]:
        """Log-probs of each (prompt, response)'s response tokens, float32 [T] each, by the weights as they are now."""
        ...

    def save(self, folder: Path, trainer_state: bool = True, whole: bool = True) -> None:
        """The policy as a Hugging Face folder into an existing folder, and beside it what is needed to go on
        (`files.TRAINER_STATE`). An adapter stands there in its own folder, too; unless `whole`, it alone stands for the
        policy."""
        ...

    def load(self, folder: Path) -> None:
        """The state beside the weights that `save` wrote; the weights, and an adapter, are loaded with the policy."""
        ...
