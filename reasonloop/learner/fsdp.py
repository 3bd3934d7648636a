"""The learner of several processes that share the float32 weights, their gradients and AdamW's moments: PyTorch's FSDP2.

Beside its shards each process has the whole policy in the dtype that it computes in, for sampling and scoring. FSDP gathers
the shards again, a layer at a time, rounded to that dtype, for each forward and backward pass: so what is trained is what a
`LocalLearner` with float32 copies trains.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from reasonloop.config import Sampling
from reasonloop.files import TRAINER_STATE
from reasonloop.learner import shards
from reasonloop.learner.batch import Example
from reasonloop.learner.critic import Critic
from reasonloop.learner.dealt import DealtLearner
from reasonloop.learner.losses import Objective
from reasonloop.learner.protocol import Measured
from reasonloop.policy.policy import Policy
from reasonloop.policy.scorer import Scored, Scorer
from reasonloop.policy.stream import Stream, pack


class FsdpLearner(DealtLearner):
    """See `DealtLearner`. `gather`, `save` and `load` are called by all processes at the same time, too."""

    def _to_train(self) -> Policy:
        mesh = DeviceMesh.from_group(self.group, self.policy.device.type)
        return sharded(self.policy, mesh)

    def _backward(
        self,
        policy: Policy,
        streams: Sequence[Sequence[Example]],
        objective: Objective,
        critic: Critic | None,
        frozen: bool,
    ) -> Measured:
        sums = super()._backward(policy, streams, objective, critic, frozen)
        for _ in (stream for stream in streams if not stream):  # in step with the others, who have one more
            nothing = np.zeros(2, np.int32)
            with torch.set_grad_enabled(not frozen):
                scored = policy.scorer(pack([nothing], [nothing], policy.device), self.sampling)
            if not frozen:
                (0.0 * scored.logprobs.sum()).backward()
        return sums

    def _add_up(self) -> None:
        """FSDP has done it."""

    def _clip(self) -> float:
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.options.grad_clip)
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def _round_to_policy(self) -> None:
        self.stale = True

    @torch.no_grad()
    def gather(self) -> None:
        if not self.stale:
            return
        for own, shard in zip(self._trained_of_policy(), self.parameters, strict=True):
            assert isinstance(shard, DTensor)
            own.copy_(shard.full_tensor())
        self.stale = False

    def _trained_of_policy(self) -> Iterator[nn.Parameter]:
        return (p for p in self.policy.model.parameters() if p.requires_grad)

    def save(self, folder: Path, trainer_state: bool = True, whole: bool = True) -> None:
        """The Hugging Face folder by rank 0, the shards by all."""
        self.gather()
        if trainer_state:
            shards.save(self.optimizer, self.parameters, folder, copies=self._rounds, group=self.group)
        if self.rank == 0:
            self.policy.write(folder)
            if trainer_state:
                state: dict[str, Any] = {"updates": self.updates, "skipped": self.skipped}
                if self.critic is not None:
                    state["critic"] = self.critic.state()
                torch.save(state, folder / TRAINER_STATE)

    @property
    def _rounds(self) -> bool:
        """Whether the policy's own weights are rounded ones"""
        return next(self._trained_of_policy()).dtype != torch.float32

    def _restore(self, state: dict[str, Any], folder: Path) -> None:
        if "optimizer" in state:  # a process that was alone has written it
            shards.take(self.optimizer, self.parameters, shards.of_local(state))
        else:
            shards.load(self.optimizer, self.parameters, folder, copies=self._rounds, group=self.group)


class _Tensors(nn.Module):
    """A scorer whose output FSDP finds the tensors in."""

    def __init__(self, scorer: Scorer) -> None:
        super().__init__()
        self.scorer = scorer

    def forward(self, stream: Stream, sampling: Sampling | None) -> tuple[Tensor, Tensor, Tensor]:
        found: Scored = self.scorer(stream, sampling)
        return found.hidden, found.logprobs, found.entropies


def sharded(policy: Policy, mesh: DeviceMesh) -> Policy:
    """A policy for learning, whose float32 weights are dealt to the processes of the mesh: those that `policy` has, from
    which each process takes its shards. Computes in the policy's dtype."""
    pairs = [(p, nn.Parameter(p.detach(), p.requires_grad)) for p in policy.model.parameters()]
    memo: dict[int, object] = {id(own): twin for own, twin in pairs}
    memo |= {id(buffer): buffer for buffer in policy.model.buffers()}
    twin = copy.copy(policy)
    twin.model = copy.deepcopy(policy.model, memo)
    dtype = next(policy.model.parameters()).dtype
    options: dict[str, Any] = {"mesh": mesh}
    if dtype != torch.float32:
        # gradients are summed in float32, as a LocalLearner sums them
        options["mp_policy"] = MixedPrecisionPolicy(dtype, torch.float32, cast_forward_inputs=False)
    root = _Tensors(policy.scorer.on(twin.model))
    for part in (*blocks(twin.model), root):
        for parameter in part.parameters():
            if not isinstance(parameter, DTensor):
                parameter.data = parameter.data.float()
        fully_shard(part, **options)
    for module in root.modules():
        if isinstance(module, FSDPModule):  # token weights carry the normaliser: a sum, no average
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    twin.scorer = _Sharded(root)  # type: ignore[assignment]
    return twin


class _Sharded:
    """`Scorer`, called as one is for learning."""

    def __init__(self, root: nn.Module) -> None:
        self._root = root

    def __call__(self, stream: Stream, sampling: Sampling | None) -> Scored:
        return Scored(*self._root(stream, sampling))


def blocks(model: Any) -> list[nn.Module]:
    """The transformer's layers, outermost ones; none where they can't be told."""
    count = int(getattr(model.config.get_text_config(), "num_hidden_layers", 0))
    lists = (module for module in model.modules() if isinstance(module, nn.ModuleList))
    return [*next((found for found in lists if len(found) == count), [])]
