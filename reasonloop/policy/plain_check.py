"""Whether a model computes on the plain path what it computes of each sequence alone, and by which of the path's means."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from reasonloop.errors import InputError, first_line
from reasonloop.policy.check import _difference, rounding
from reasonloop.policy.plain import Lane, PlainScorer, cache_of, trunk

LENGTHS = (24, 21)
"""Tokens of the rows that are looked at, the longest first"""
ERRORS = (TypeError, AttributeError, NotImplementedError, RuntimeError, ValueError, IndexError, KeyError)
"""What a family's own code may raise where it is called in another way than it expects"""


def plain_scorer(model: Any, vocabulary: int, name: str, lengths: tuple[int, int] = LENGTHS) -> PlainScorer:
    """The fastest means of the plain path that are exact for this model; see `PlainScorer`. The reference is the model's own
    forward pass over each row alone.

    Raises InputError for a model that isn't causal: it has no log-probs that a response could have been sampled with.
    """
    rng = np.random.default_rng(1)
    drawn = [torch.from_numpy(rng.integers(0, vocabulary, length)).to(model.device) for length in lengths]
    long, short = drawn[0], drawn[1]
    tolerance = rounding(model)
    with torch.inference_mode():
        try:
            alone = [model(input_ids=row[None], use_cache=False).logits[0].float() for row in (long, short)]
            begun = model(input_ids=long[None, : len(short)], use_cache=False).logits[0].float()
        except ERRORS as error:
            raise InputError(f"model {name}: its forward pass doesn't run: {first_line(error)}") from error
        if not _difference(begun, alone[0][: len(short)]) < tolerance:
            raise InputError(
                f"model {name}: what comes after a token changes its logits: no causal model, which log-probs of sampled "
                "responses need"
            )
        scorer = PlainScorer(model, separable=_agree(model, long, alone[0], tolerance))
        rows = torch.stack([long, torch.cat([short, long[: len(long) - len(short)]])])
        scorer.pads = _pads(scorer, rows, alone, tolerance)
        scorer.cache = cache_of(trunk(model) if scorer.separable else model)
        if scorer.cache is not None and not _goes_on(scorer, torch.stack([long, rows[1]]), tolerance):
            scorer.cache = None
    return scorer


def _agree(model: Any, row: Tensor, logits: Tensor, tolerance: float) -> bool:
    """Whether head and last hidden states are apart as `Scorer.head` has it."""
    scorer = PlainScorer(model)
    try:
        return _difference(scorer.head().logits(scorer.rows(row[None])[0]), logits) < tolerance
    except ERRORS:
        return False


def _pads(scorer: PlainScorer, rows: Tensor, alone: list[Tensor], tolerance: float) -> bool:
    found = scorer.rows(rows)
    pairs = zip(found, alone, strict=True)
    return all(_difference(scorer.head().logits(own[: len(one)]), one) < tolerance for own, one in pairs)


def _goes_on(scorer: PlainScorer, rows: Tensor, tolerance: float) -> bool:
    """Whether decoding in lanes with the family's cache gives what whole rows give: rows repeated, dropped and exchanged."""
    expected = torch.stack([scorer.model(input_ids=row[None], use_cache=False).logits[0].float() for row in rows])
    begun = rows.shape[1] // 2
    try:
        first = Lane(scorer, rows[:, :begun])
        lane = first.taken([1, 0, 0])
        found = [(begun - 1, [1, 0, 0], lane.outputs)]
        order = [1, 0, 0]
        for place in range(begun, rows.shape[1]):
            if place == begun + 3:
                lane.keep([2, 0])
                order = [0, 1]
            found.append((place, order, lane.step(rows[order, place])))
    except ERRORS:
        return False
    return all(
        _difference(scorer.head().logits(outputs), expected[which, place]) < tolerance
        for place, which, outputs in found
    )
