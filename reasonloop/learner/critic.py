"""The critic of PPO: the expected return before each response token."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reasonloop.config import Optimizer, Ppo
from reasonloop.kernels.products import wide_products
from reasonloop.policy.policy import Policy
from reasonloop.policy.stream import Stream, pack, split_by_tokens


class Critic:
    """A value head: a linear map on hidden states, zero at first; it and a trunk of its own are in float32.

    `critic = "copy"` (the paper's) gives it a trunk of its own, which starts as a copy of the policy; "shared" puts it on
    the policy's hidden states, so that the value loss trains the policy's trunk as well.
    """

    def __init__(self, policy: Policy, options: Ppo, optimizer: Optimizer) -> None:
        self.shared, self.options, self.clip = options.critic == "shared", options, optimizer.grad_clip
        self.trunk = policy if self.shared else Policy(copy.deepcopy(policy.model).float(), policy.tokenizer)
        size = policy.model.get_output_embeddings().weight.shape[1]
        self.head = torch.nn.Linear(size, 1, device=policy.device)
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.zeros_(self.head.bias)
        self.parameters = list(self.head.parameters())
        if not self.shared:
            self.parameters += [p for p in self.trunk.model.base_model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=0.0, betas=optimizer.betas, weight_decay=optimizer.weight_decay, fused=True
        )

    def values(self, stream: Stream, policy_hidden: Tensor | None = None) -> Tensor:
        """Values [M] before the stream's target tokens. `policy_hidden` [M, D]: what a shared critic reads, if known."""
        hidden = policy_hidden
        if hidden is None:
            hidden = self.trunk.hidden(stream.tokens, stream.positions, stream.plan)[stream.predict_from]
        return self.head(hidden.float())[:, 0]

    def score(self, prompts: Sequence[np.ndarray], responses: Sequence[np.ndarray], limit: int) -> list[np.ndarray]:
        """Values before each response's tokens, float32 [T] each; no gradient. `limit`: tokens in a forward pass."""
        scored: list[np.ndarray] = [np.empty(0, np.float32)] * len(prompts)
        for members in split_by_tokens(prompts, responses, limit):
            stream = pack([prompts[i] for i in members], [responses[i] for i in members], self.trunk.device)
            with torch.inference_mode(), wide_products(self.trunk.model):
                values = self.values(stream)
            for i, part in zip(members, stream.split(values.cpu().numpy()), strict=True):
                scored[i] = part
        return scored

    def step(self, learning_rate: float) -> float:
        """Clips the gradients and takes a step, unless they are not finite; returns their norm before clipping."""
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.clip))
        if math.isfinite(norm):
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def state(self) -> dict[str, Any]:
        trunk = {} if self.shared else self.trunk.model.base_model.state_dict()
        return {"head": self.head.state_dict(), "trunk": trunk, "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.head.load_state_dict(state["head"])
        if not self.shared:
            self.trunk.model.base_model.load_state_dict(state["trunk"])
        self.optimizer.load_state_dict(state["optimizer"])


def explained_variance(values: Sequence[np.ndarray], returns: Sequence[np.ndarray]) -> float:
    """1 - Var(returns - values) / Var(returns) over all tokens: 1 is a perfect critic, 0 one that knows the mean only."""
    told, right = np.concatenate(values).astype(np.float64), np.concatenate(returns).astype(np.float64)
    variance = float(right.var())
    return 1 - float((right - told).var()) / variance if variance > 0 else math.nan
