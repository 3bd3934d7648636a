"""The learner in this process: a policy, its optimizer, and one update at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reasonloop.config import Optimizer, Sampling
from reasonloop.files import ADAPTER, TRAINER_STATE
from reasonloop.kernels.matmul import wide_matmul
from reasonloop.learner import optimizers
from reasonloop.learner.batch import Example, token_targets
from reasonloop.learner.critic import Critic
from reasonloop.learner.in_threads import InThreads, cut
from reasonloop.learner.losses import Objective, TokenTargets, loss
from reasonloop.learner.protocol import Measured
from reasonloop.learner.recompute import recompute
from reasonloop.policy.policy import Policy, Weights
from reasonloop.policy.shape import MOST_THREADS
from reasonloop.policy.stream import pack

SUMS = ("loss", "entropy", "logprob", "clipped", "k1", "apart", "kl", "value")
"""What is summed over the tokens of an update"""


def scheduled(peak: float, schedule: str, update: float, total: int, warmup: int) -> float:
    """The learning rate of update 0, 1, ... of `total`: linear warm-up, then constant, linear or cosine to 10 %. `update`
    may lie between two."""
    if update < warmup:
        return peak * (update + 1) / warmup
    if schedule == "constant":
        return peak
    progress = min(1.0, (update - warmup) / max(1, total - 1 - warmup))
    falling = 1 - progress if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return peak * (0.1 + 0.9 * falling)


class LocalLearner:
    """Trains a policy in place. Its state is the weights, AdamW's moments and two counters. See `Learner`.

    A policy in bfloat16 has float32 copies of its weights here: they take the steps, which are often smaller than what
    bfloat16 can tell apart, and hand what they have become, rounded, to the policy. Gradients are summed in float32.
    """

    def __init__(
        self,
        policy: Policy,
        options: Optimizer,
        sampling: Sampling,
        checkpointing: bool = False,
        critic: Critic | None = None,
    ) -> None:
        self.policy, self.options, self.sampling, self.critic = policy, options, sampling, critic
        self._threads, self._checkpointing = InThreads(), checkpointing
        self.trained = self._to_train()
        """What computes losses and gradients"""
        if checkpointing:
            self._recompute()
        self._own = [p for p in self.trained.model.parameters() if p.requires_grad]
        self.parameters = [p if p.dtype == torch.float32 else torch.nn.Parameter(p.detach().float()) for p in self._own]
        """What the optimizer changes: the policy's own float32 parameters, or float32 copies"""
        self.optimizer = optimizers.adamw(self.parameters, options)
        self.updates = 0
        self.skipped = 0

    def _to_train(self) -> Policy:
        return self.policy

    def _recompute(self) -> None:
        """Has the backward pass compute activations again."""
        nothing = np.zeros(2, np.int32)
        # attention looks at itself once, which isn't computed again
        self.policy.score([nothing], [nothing], self.sampling)
        recompute(self.trained.model)

    @property
    def weights(self) -> Weights:
        return Weights(self.updates, self.policy)

    def score(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]], sampling: Sampling) -> list[np.ndarray]:
        return self.policy.score([prompt for prompt, _ in pairs], [response for _, response in pairs], sampling)

    def update(self, examples: Sequence[Example], rate: float, objective: Objective | None = None) -> Measured:
        """One optimizer step on the batch. Gradients don't depend on how it is cut into micro-batches.

        Where the examples have values the critic learns, too, at its own rate; where `rate` is 0 it alone does. Returns what
        `Learner.update` says, and with a critic value_loss and critic_grad_norm.
        """
        critic = self.critic is not None and any(example.value_weight is not None for example in examples)
        parts = self._parts(examples, alone=critic)
        return measured(self.learn(parts, rate, objective or Objective(), critic), examples)

    def _parts(self, examples: Sequence[Example], alone: bool) -> list[list[list[Example]]]:
        """An update's examples by thread and stream; `alone`: in one thread."""
        alone = alone or self._checkpointing or bool(self._copies())
        threads = torch.get_num_threads() if self.policy.device.type == "cpu" and not alone else 1
        prompts, responses = [e.prompt for e in examples], [e.response for e in examples]
        packing = self.policy.scorer.packing
        parts = cut(prompts, responses, self.options.microbatch_tokens, min(threads, MOST_THREADS), packing)
        return [[[examples[i] for i in members] for members in streams] for streams in parts]

    def learn(
        self, parts: Sequence[Sequence[Sequence[Example]]], rate: float, objective: Objective, with_critic: bool = False
    ) -> Measured:
        """One optimizer step on examples by thread and stream: the sums of `SUMS` over them, grad_norm, learning_rate, and
        critic_grad_norm `with_critic`."""
        critic = self.critic if with_critic else None
        frozen = critic is not None and rate == 0
        self.optimizer.zero_grad(set_to_none=True)
        sums = self._gradients(parts, objective, critic, frozen)
        norm = 0.0 if frozen else self._clip()
        if not math.isfinite(norm):
            self.skipped += 1
        elif not frozen:
            optimizers.step(self.optimizer, self.parameters, rate)
            self._round_to_policy()
        of_critic = {} if critic is None else {"critic_grad_norm": critic.step()}
        self.optimizer.zero_grad(set_to_none=True)
        self.updates += 1
        return {**sums, "grad_norm": norm, "learning_rate": rate, **of_critic}

    def _gradients(
        self,
        parts: Sequence[Sequence[Sequence[Example]]],
        objective: Objective,
        critic: Critic | None,
        frozen: bool,
    ) -> Measured:
        """The gradients of all parts' losses, summed in the parameters; the sums of `SUMS`."""

        def work(policy: Policy, streams: Sequence[Sequence[Example]]) -> Measured:
            with wide_matmul(policy.device):
                return self._backward(policy, streams, objective, critic, frozen)

        found = self._threads.run(self.trained, parts, work)
        return {name: sum(part[name] for part in found) for name in SUMS}

    def _clip(self) -> float:
        """Clips the gradients; their norm before."""
        return float(torch.nn.utils.clip_grad_norm_(self.parameters, self.options.grad_clip))

    def _backward(
        self,
        policy: Policy,
        streams: Sequence[Sequence[Example]],
        objective: Objective,
        critic: Critic | None,
        frozen: bool,
    ) -> Measured:
        """Adds the gradients of some streams to the policy's (and the critic's); sums over their response tokens."""
        sums = torch.zeros(
            len(SUMS), dtype=torch.float64, device=policy.device
        )  # one transfer an update, not seven a stream
        for examples in streams:
            stream = pack([e.prompt for e in examples], [e.response for e in examples], policy.device)
            targets = token_targets(examples, policy.device, objective.importance_clip)
            with torch.set_grad_enabled(not frozen):
                scored = policy.scorer(stream, self.sampling)
            part = loss(scored.logprobs, targets, objective, critic.values(stream) if critic else None)
            part.total.backward()
            self._collect_gradients()
            entropy, logprob = (_over_sampled(values, targets) for values in (scored.entropies, scored.logprobs))
            found = (part.total, entropy, logprob, part.clipped, part.k1, part.apart, part.kl, part.value)
            sums += torch.stack([value.detach().double() for value in found])
        return dict(zip(SUMS, sums.tolist(), strict=True))

    def _copies(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """(the policy's parameter, its float32 copy), of those that have one."""
        both = zip(self._own, self.parameters, strict=True)
        return [(own, copy) for own, copy in both if copy is not own]

    def _collect_gradients(self) -> None:
        """Adds a micro-batch's gradients to those of the float32 copies."""
        for own, copy in self._copies():
            if own.grad is not None:
                copy.grad = own.grad.float() if copy.grad is None else copy.grad.add_(own.grad)
                own.grad = None

    def _round_to_policy(self) -> None:
        if copies := self._copies():
            with torch.no_grad():
                torch._foreach_copy_([own for own, _ in copies], [copy for _, copy in copies])

    def save(self, folder: Path, trainer_state: bool = True, whole: bool = True) -> None:
        """The policy as a Hugging Face folder into an existing folder; beside it optimizer, float32 copies, counters and
        critic. See `Learner.save`."""
        if self.policy.adapter is not None:
            self.policy.save_adapter(folder / ADAPTER)
        if whole or self.policy.adapter is None:
            self.policy.write(folder)
        if not trainer_state:
            return
        state: dict[str, Any] = {
            "optimizer": self.optimizer.state_dict(),
            "updates": self.updates,
            "skipped": self.skipped,
            "copies": [copy.detach() for _, copy in self._copies()],
        }
        if self.critic is not None:
            state["critic"] = self.critic.state()
        torch.save(state, folder / TRAINER_STATE)

    def load(self, folder: Path) -> None:
        state: dict[str, Any] = torch.load(folder / TRAINER_STATE, weights_only=True, map_location=self.policy.device)
        self._restore(state, folder)
        self.updates, self.skipped = state["updates"], state["skipped"]
        if self.critic is not None:
            self.critic.load_state(state["critic"])

    def _restore(self, state: dict[str, Any], folder: Path) -> None:
        """The optimizer's state and the float32 copies."""
        if "optimizer" not in state:  # several processes have written it
            from reasonloop.learner import shards

            shards.load(self.optimizer, self.parameters, folder, copies=bool(self._copies()))
            return
        optimizers.restore(self.optimizer, state["optimizer"])
        with torch.no_grad():
            for (_, copy), saved in zip(self._copies(), state["copies"], strict=True):
                copy.copy_(saved)


def measured(found: Measured, examples: Sequence[Example]) -> Measured:
    """What `Learner.update` says, from what `LocalLearner.learn` has summed over the examples."""
    tokens = sum(example.length for example in examples)
    told = {name: found[name] for name in ("loss", "grad_norm")}
    told |= {name: found[name] / tokens for name in ("entropy", "logprob")}
    told |= {"clip_fraction": found["clipped"] / tokens, "k1": found["k1"] / tokens, "apart": found["apart"] / tokens}
    told |= {"kl": found["kl"] / tokens}
    told |= {"tokens": float(tokens), "learning_rate": found["learning_rate"]}
    if "critic_grad_norm" in found:
        told |= {"critic_grad_norm": found["critic_grad_norm"], "value_loss": found["value"]}
    return told


def _over_sampled(values: torch.Tensor, targets: TokenTargets) -> torch.Tensor:
    return values.sum() if targets.sampled is None else values[targets.sampled].sum()
