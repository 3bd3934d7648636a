"""Data parallelism in threads: an update's streams side by side.

On a CPU a forward and backward pass is matrix products with memory-bound passes between them, and its threads wait for one
another at every operation. Two streams of half the size, a core each, don't wait. Each has a module tree of its own on the
same weights, so that gradients are summed apart, and then in a fixed order: the result is the same in every run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

from reasonloop.policy.copies import copied
from reasonloop.policy.policy import Policy
from reasonloop.policy.shape import MOST_THREADS
from reasonloop.policy.stream import TOGETHER, Packing, common_prefix, split_by_tokens

WORTH = 1.1
"""Cutting an update up repeats prompts and what all prompts begin with: not where the longest part, times the parts, is
longer than the whole by this"""

StreamT = TypeVar("StreamT")
ResultT = TypeVar("ResultT")


def cut(
    prompts: Sequence[np.ndarray],
    responses: Sequence[np.ndarray],
    limit: int,
    threads: int,
    packing: Packing = TOGETHER,
) -> list[list[list[int]]]:
    """Indices of the pairs by part and stream: one part, or one for each of `threads` where that is worth it.

    The streams that are worked on at the same time have at most `limit` tokens together (a single longer pair excepted).
    """
    whole = split_by_tokens(prompts, responses, limit, packing)
    if threads < 2 or len(prompts) < threads:
        return [whole]
    total = sum(stream_tokens(prompts, responses, members, packing) for members in whole)
    rounds = len(whole)
    size = max(1, total // (rounds * threads))
    while size <= limit // threads:
        streams = split_by_tokens(prompts, responses, size, packing)
        if len(streams) == rounds * threads:
            parts = [streams[i::threads] for i in range(threads)]
            longest = max(sum(stream_tokens(prompts, responses, one, packing) for one in part) for part in parts)
            return parts if longest * threads <= WORTH * total else [whole]
        size += 1 + size // 50
    return [whole]


def stream_tokens(
    prompts: Sequence[np.ndarray], responses: Sequence[np.ndarray], members: Sequence[int], packing: Packing = TOGETHER
) -> int:
    """Tokens of the stream that `stream.pack` makes of these pairs; where prompts aren't shared, of all of them apart."""
    if not packing.shared:
        return sum(len(prompts[i]) + len(responses[i]) - 1 for i in members)
    distinct = {prompts[i].tobytes(): prompts[i] for i in members}
    prefix = common_prefix(list(distinct.values()))
    own = sum(len(prompt) - prefix for prompt in distinct.values())
    return prefix + own + sum(len(responses[i]) - 1 for i in members)


class InThreads:
    """Threads that each work on a stream, with an equal share of torch's threads."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None

    def run(
        self,
        policy: Policy,
        parts: Sequence[Sequence[StreamT]],
        work: Callable[[Policy, Sequence[StreamT]], ResultT],
    ) -> list[ResultT]:
        """`work(policy, streams)` for each part's streams at the same time; all gradients are then in `policy`'s."""
        if len(parts) == 1:
            return [work(policy, parts[0])]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(MOST_THREADS - 1, "learner")
        threads = torch.get_num_threads()
        twins = [_twin(policy) for _ in parts[1:]]
        torch.set_num_threads(max(1, threads // len(parts)))
        try:
            others = [
                self._pool.submit(work, twin, streams) for (twin, _), streams in zip(twins, parts[1:], strict=True)
            ]
            try:
                results = [work(policy, parts[0])]
            finally:
                for other in others:  # nobody may go on with the weights while another reads them
                    other.exception()
            results += [other.result() for other in others]
        finally:
            torch.set_num_threads(threads)
        for _, pairs in twins:
            for own, theirs in pairs:
                if theirs.grad is not None:
                    own.grad = theirs.grad if own.grad is None else own.grad.add_(theirs.grad)
        return results


Pairs = list[tuple[torch.nn.Parameter, torch.nn.Parameter]]


def _twin(policy: Policy) -> tuple[Policy, Pairs]:
    """A policy on the same weights with gradients of its own, and (own, its) parameters."""
    pairs = [(p, torch.nn.Parameter(p.detach(), p.requires_grad)) for p in policy.model.parameters()]
    memo: dict[int, object] = {id(own): twin for own, twin in pairs}
    memo |= {id(buffer): buffer for buffer in policy.model.buffers()}
    return policy.on(copied(policy.model, memo)), pairs
