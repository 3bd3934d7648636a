"""A learner that is one of several processes': an update's streams are dealt to them, and their gradients added up.

A loss is a weighted sum over tokens whose weights carry the normaliser. So what an update learns doesn't depend on how its
streams are dealt, and gradients are summed, never averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist

from reasonloop.config import Optimizer, Sampling
from reasonloop.learner.batch import Example
from reasonloop.learner.critic import Critic
from reasonloop.learner.in_threads import stream_tokens
from reasonloop.learner.local import LocalLearner
from reasonloop.learner.losses import Objective
from reasonloop.learner.protocol import Measured
from reasonloop.policy.policy import Policy
from reasonloop.policy.stream import TOGETHER, Packing, split_by_tokens

Streams = list[list[Example]]


def dealt(examples: Sequence[Example], limit: int, ranks: int, packing: Packing = TOGETHER) -> list[Streams]:
    """An update's examples by rank and stream of at most `limit` tokens (a single longer response excepted).

    All ranks have the same number of streams, of which the last may be empty: what they do together must be done by all. The
    streams that are worked on at the same time are about as long as one another.
    """
    prompts, responses = [e.prompt for e in examples], [e.response for e in examples]
    streams = split_by_tokens(prompts, responses, limit, packing)
    rounds = -(-len(streams) // ranks)

    def tokens(members: Sequence[int]) -> int:
        return stream_tokens(prompts, responses, members, packing)

    total = sum(map(tokens, streams))
    size = max(1, total // (rounds * ranks))
    while size < limit:
        finer = split_by_tokens(prompts, responses, size, packing)
        if len(finer) <= rounds * ranks:
            streams = finer
            break
        size += 1 + size // 50
    streams.sort(key=tokens, reverse=True)
    streams += [[]] * (rounds * ranks - len(streams))
    return [[[examples[i] for i in members] for members in streams[rank::ranks]] for rank in range(ranks)]


class DealtLearner(LocalLearner):
    """One of the learners of a group of processes; each has all weights, and all take the same steps.

    `learn` and `load` are called by all of them at the same time, `learn` with each one's streams; `save` writes what rank 0
    has. For what is small beside the model: an adapter.
    """

    stale = False
    """Whether the policy's weights are those before the last update, until `gather`"""

    def __init__(
        self,
        policy: Policy,
        options: Optimizer,
        sampling: Sampling,
        checkpointing: bool = False,
        critic: Critic | None = None,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        """`group`: the processes; None: all."""
        everyone = group if group is not None else dist.group.WORLD
        assert everyone is not None  # torch.distributed is there
        self.group = everyone
        self.rank, self.world = dist.get_rank(self.group), dist.get_world_size(self.group)
        super().__init__(policy, options, sampling, checkpointing, critic)

    def _gradients(
        self,
        parts: Sequence[Sequence[Sequence[Example]]],
        objective: Objective,
        critic: Critic | None,
        frozen: bool,
    ) -> Measured:
        """Of all processes' parts; the sums are of this one's."""
        sums = super()._gradients(parts, objective, critic, frozen)
        if not frozen:
            self._add_up()
        if critic is not None:
            self._all_reduce(critic.parameters)
        return sums

    def _backward(
        self,
        policy: Policy,
        streams: Sequence[Sequence[Example]],
        objective: Objective,
        critic: Critic | None,
        frozen: bool,
    ) -> Measured:
        return super()._backward(policy, [stream for stream in streams if stream], objective, critic, frozen)

    def _add_up(self) -> None:
        self._all_reduce(self.parameters)

    def _all_reduce(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad = parameter.grad.contiguous()
            dist.all_reduce(parameter.grad, group=self.group)

    def gather(self) -> None:
        """The policy has all weights as they are now."""

    def save(self, folder: Path, trainer_state: bool = True, whole: bool = True) -> None:
        if self.rank == 0:
            super().save(folder, trainer_state, whole)
