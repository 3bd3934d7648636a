"""The stages that methods are made of: each a function of (recipe, checkpoint, store).

A stage can be killed at any moment: called again it continues from its last checkpoint, and a finished one returns at
once what it made.
"""

from reasonloop.stages.common import (
    RL_ROLLOUT,
    TRAINED_EXAMPLE,
    Source,
    checkpoint,
    device,
    expected_experts,
    rollouts_spent,
)
from reasonloop.stages.evaluate import deliver, evaluate
from reasonloop.stages.explore import best_policy, explore
from reasonloop.stages.finetune import chosen_experts, demonstrations, finetune

__all__ = [
    "RL_ROLLOUT",
    "TRAINED_EXAMPLE",
    "Source",
    "best_policy",
    "checkpoint",
    "chosen_experts",
    "deliver",
    "demonstrations",
    "device",
    "evaluate",
    "expected_experts",
    "explore",
    "finetune",
    "rollouts_spent",
]
