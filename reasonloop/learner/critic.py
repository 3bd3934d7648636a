"""The critic of PPO: the expected return before each response token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reasonloop.config import Optimizer, Ppo
from reasonloop.kernels.matmul import wide_matmul
from reasonloop.learner import optimizers
from reasonloop.learner.estimates import Estimate, Estimates
from reasonloop.learner.gae import gae, token_rewards, whiten
from reasonloop.policy.copies import copied
from reasonloop.policy.policy import Policy
from reasonloop.policy.stream import Stream, in_streams
from reasonloop.records import Group, Rollout


class Critic:
    """A trunk that starts as a copy of the policy, and a linear value head on it, zero at first; both in float32."""

    def __init__(self, policy: Policy, options: Ppo, optimizer: Optimizer, kl_coef: float = 0.0) -> None:
        """`kl_coef`: weight of the KL to the reference in the token rewards."""
        self.options, self.optimizer_options, self.kl_coef = options, optimizer, kl_coef
        self.trunk = policy.on(copied(policy.model).float().eval())
        size = policy.model.get_output_embeddings().weight.shape[1]
        self.head = torch.nn.Linear(size, 1, device=policy.device)
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.zeros_(self.head.bias)
        self.parameters = [*self.head.parameters(), *self._trained().values()]
        self.optimizer = optimizers.adamw(self.parameters, optimizer)

    def values(self, stream: Stream) -> Tensor:
        """Values [M] before the stream's target tokens."""
        values: Tensor = self.head(self.trunk.scorer(stream, None).hidden.float())[:, 0]
        return values

    def score(self, prompts: Sequence[np.ndarray], responses: Sequence[np.ndarray], limit: int) -> list[np.ndarray]:
        """Values before each response's tokens, float32 [T] each; no gradient. `limit`: tokens in a forward pass."""
        with wide_matmul(self.trunk.device):
            return in_streams(prompts, responses, limit, self.trunk.device, self.values, self.trunk.scorer.packing)

    def estimate(self, groups: Sequence[Group]) -> Estimates:
        """Generalised advantages of all rollouts' tokens, by the critic as it is now; see `Estimator`.

        Tokens that the policy didn't sample are no actions: rewards, values and advantages pass over them.
        """
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        limit = self.optimizer_options.microbatch_tokens
        values = self.score([r.prompt_tokens for r in rollouts], [r.response_tokens for r in rollouts], limit)
        references: list[np.ndarray | None] = []
        for group in groups:
            known = group.reference if self.kl_coef else None
            references += known if known is not None else [None] * len(group.rollouts)
        advantages, returns, outcomes, told = [], [], [], []
        for rollout, value, reference in zip(rollouts, values, references, strict=True):
            own = slice(None) if rollout.sampled is None else rollout.sampled
            before = reference[own] if reference is not None else None
            rewards = token_rewards(rollout.reward_without_kl, rollout.logprobs[own], before, self.kl_coef)
            told.append(value[own])
            advantage, target = gae(rewards, told[-1], self.options.gae_lambda)
            if self.options.value_lambda != self.options.gae_lambda:
                _, target = gae(rewards, told[-1], self.options.value_lambda)
            advantages.append(advantage)
            returns.append(target)
            outcomes.append(rewards[::-1].cumsum()[::-1])
        measured = {"explained_variance": explained_variance(told, outcomes)}
        found = iter(
            Estimate(_spread(a, r), _spread(g, r), v)
            for r, a, g, v in zip(rollouts, whiten(advantages), returns, values, strict=True)
        )
        return Estimates([[next(found) for _ in group.rollouts] for group in groups], measured)

    def step(self) -> float:
        """Clips the gradients and takes a step, unless they are not finite; returns their norm before clipping."""
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.optimizer_options.grad_clip))
        if math.isfinite(norm):
            optimizers.step(self.optimizer, self.parameters, self.options.learning_rate)
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def state(self) -> dict[str, Any]:
        trunk = {name: parameter.detach() for name, parameter in self._trained().items()}
        return {"head": self.head.state_dict(), "trunk": trunk, "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.head.load_state_dict(state["head"])
        with torch.no_grad():
            for name, parameter in self._trained().items():
                parameter.copy_(state["trunk"][name])
        optimizers.restore(self.optimizer, state["optimizer"])

    def _trained(self) -> dict[str, torch.nn.Parameter]:
        """The trunk's parameters that learn, by name: of a policy with an adapter the adapter's"""
        return {name: p for name, p in self.trunk.model.base_model.named_parameters() if p.requires_grad}


def explained_variance(values: Sequence[np.ndarray], returns: Sequence[np.ndarray]) -> float:
    """1 - Var(returns - values) / Var(returns) over all tokens: 1 is a perfect critic, 0 one that knows the mean only.
    `returns`: what came of each token, with nothing in them that a critic said."""
    told, right = np.concatenate(values).astype(np.float64), np.concatenate(returns).astype(np.float64)
    variance = float(right.var())
    return 1 - float((right - told).var()) / variance if variance > 0 else math.nan


def _spread(values: np.ndarray, rollout: Rollout) -> np.ndarray:
    """Values of the tokens that the policy sampled -> [T], zeros at the others."""
    if rollout.sampled is None:
        return values
    spread = np.zeros(len(rollout.sampled), values.dtype)
    spread[rollout.sampled] = values
    return spread
