"""Responses of given lengths out of transformers' generation, by its public hooks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import LogitsProcessor, StoppingCriteria
from transformers.generation.continuous_batching import ContinuousBatchingManager


class LengthReached(StoppingCriteria):
    """`generate`: row i is done after lengths[i] new tokens. For models without an end-of-sequence token."""

    def __init__(self, prompt: int, lengths: Sequence[int]) -> None:
        self._ends = torch.tensor(lengths) + prompt

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return self._ends <= input_ids.shape[1]


class EndAt(LogitsProcessor):
    """`generate`: row i gets the end-of-sequence token as its token number lengths[i], and never before.

    For callers (TRL) that read a response's length off its first end-of-sequence token.
    """

    def __init__(self, prompt: int, lengths: Sequence[int], ends: Sequence[int]) -> None:
        self._last = torch.tensor(lengths) + prompt - 1
        self._ends = list(ends)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores[:, self._ends] = float("-inf")
        last = (self._last == input_ids.shape[1]).nonzero()[:, 0]
        if len(last):
            scores[last] = float("-inf")
            scores[last, self._ends[0]] = 0.0
        return scores


@contextmanager
def forced_lengths(lengths: Sequence[int]) -> Iterator[None]:
    """Continuous batching: request number i of a fresh manager stops after lengths[i] tokens, whatever they are."""
    original = ContinuousBatchingManager.add_request

    def add_request(self: Any, input_ids: list[int], request_id: str | None = None, **kwargs: Any) -> str | None:
        assert request_id is not None  # generate_batch names its requests req_0, req_1, ... in the caller's order
        kwargs.update(max_new_tokens=lengths[int(request_id.rsplit("_", 1)[1])], eos_token_id=-1)
        return original(self, input_ids, request_id=request_id, **kwargs)

    setattr(ContinuousBatchingManager, "add_request", add_request)  # noqa: B010  (a method, for the type checker)
    try:
        yield
    finally:
        setattr(ContinuousBatchingManager, "add_request", original)  # noqa: B010
