"""The stages that methods are made of: each a function of (recipe, checkpoint, store).

A stage can be killed at any moment: called again it continues from its last checkpoint, and a finished one returns at
once what it made.
"""

from reasonloop.stages.common import (
    RL_ROLLOUT,
    TRAINED_EXAMPLE,
    Source,
    checkpoint,
    expected_experts,
    load_policy,
    rollouts_spent,
)
from reasonloop.stages.evaluate import deliver, evaluate
from reasonloop.stages.explore import best_policy, explore
from reasonloop.stages.finetune import demonstrations, expert_rollouts, finetune, solved_experts

__all__ = [
    "RL_ROLLOUT",
    "TRAINED_EXAMPLE",
    "Source",
    "best_policy",
    "checkpoint",
    "deliver",
    "demonstrations",
    "evaluate",
    "expected_experts",
    "expert_rollouts",
    "explore",
    "finetune",
    "load_policy",
    "rollouts_spent",
    "solved_experts",
]
