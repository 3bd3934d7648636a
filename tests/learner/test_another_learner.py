"""A second learner needs one class: a whole run goes through `Session.learner` and the protocol alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_fixtures import metrics, small_recipe

from reasonloop.cli import main
from reasonloop.config import Sampling
from reasonloop.learner.batch import Example
from reasonloop.learner.protocol import Measured
from reasonloop.policy.policy import Policy, Weights
from reasonloop.runs.session import Session


class Nudged:
    """Moves every weight by its rate at each update, whatever it is given: all that another learner has to be."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.updates, self.skipped = policy, 0, 0

    @property
    def weights(self) -> Weights:
        return Weights(self.updates, self.policy)

    def update(self, examples: Sequence[Example], rate: float, objective: Any = None) -> Measured:
        with torch.no_grad():
            for parameter in self.policy.model.parameters():
                parameter.add_(rate)
        self.updates += 1
        names = ("loss", "grad_norm", "entropy", "logprob", "k1", "kl", "clip_fraction")
        return dict.fromkeys(names, 0.0) | {"tokens": float(sum(e.length for e in examples)), "learning_rate": rate}

    def score(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]], sampling: Sampling) -> list[np.ndarray]:
        return self.policy.score([prompt for prompt, _ in pairs], [response for _, response in pairs], sampling)

    def save(self, folder: Path, trainer_state: bool = True, whole: bool = True) -> None:
        self.policy.write(folder)
        (folder / "updates").write_text(str(self.updates))

    def load(self, folder: Path) -> None:
        self.updates = int((folder / "updates").read_text())


def test_a_run_with_another_learner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "learner", lambda self, policy, sampling, critic=None: Nudged(policy))
    out = tmp_path / "run"
    argv = ["run", str(small_recipe(tmp_path)), "rl.learning_rate=1e-5", "rft.learning_rate=1e-5", "--out", str(out)]
    assert main([*argv, "rl.refill_rounds=2", "keep_checkpoints=true"]) == 0
    learned = [line for line in metrics(out, stage="explore", branch="main", iteration=0) if line["groups_used"]]
    assert [line["learning_rate"] for line in learned] == [1e-5] * len(learned) != []
    kept, product = (Policy.load(folder).model for folder in (out / "checkpoints" / "main-rft-1", out / "model"))
    assert all(torch.equal(a, b) for a, b in zip(kept.parameters(), product.parameters(), strict=True))
