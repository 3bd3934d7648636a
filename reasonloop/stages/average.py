"""Averages of two policies, weight by weight."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from reasonloop.policy.policy import Policy
from reasonloop.records import Place
from reasonloop.runs.session import Session
from reasonloop.runs.stages import Source


def average(run: Session, start: Source, trained: Source, weight: float, place: Place) -> Source:
    """See `Stages.average`. The policy is a checkpoint like a fine-tuning's."""
    checkpoint = run.folder.checkpoint(place)
    if checkpoint.state() is None:
        run.stop_point()
        policy = run.take_policy(trained)
        move(policy, run.policy(start), weight)
        checkpoint.save(_Made(policy), {"step": 0, "done": True}, trainer_state=False)
        run.hold(checkpoint.folder, policy)
    return checkpoint.folder


def move(policy: Policy, start: Policy, weight: float) -> None:
    """Makes the policy's weights start + weight (own - start): computed in float64, rounded to the policy's type. Raises
    ValueError where the two aren't of one shape."""
    own, before = (dict(one.model.named_parameters()) for one in (policy, start))
    if {name: value.shape for name, value in own.items()} != {name: value.shape for name, value in before.items()}:
        raise ValueError(f"{policy} and {start} have weights of other names or shapes: there is no average of them")
    with torch.no_grad():
        for name, value in own.items():  # tied ones are there once
            value.copy_(torch.lerp(before[name].double(), value.double(), weight))


@dataclass
class _Made:
    """A policy that no learner has."""

    policy: Policy

    def save(self, folder: Path, trainer_state: bool = True, whole: bool = True) -> None:
        self.policy.write(folder)
