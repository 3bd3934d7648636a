"""Whether a model computes on the plain path what it computes of each sequence alone, and by which of the path's means."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reasonloop.errors import InputError, first_line
from reasonloop.policy.check import UNFIT, differences, filler, ordinary, rounding, worst_of
from reasonloop.policy.finite import NotFinite
from reasonloop.policy.plain import Lane, PlainScorer, ways_on
from reasonloop.policy.reach import shortened
from reasonloop.policy.scorer import has_plain_head

LENGTHS = (24, 21)
"""Tokens of the rows that are looked at"""
FINE = 20
"""Most that two ways may differ by at half of the tokens, see `rounding`. More is something else: a model that isn't causal
and mixes little, or a family whose decoding lacks a bound that its forward pass has (transformers' Zamba2, Nemotron-H)."""


def plain_scorer(model: Any, vocabulary: int, name: str) -> PlainScorer:
    """The fastest means of the plain path that are exact for this model; see `PlainScorer`. The reference is the model's own
    forward pass over each row alone, while its windows and the like are shortened.

    Raises InputError for a model that isn't causal (it has no log-probs that a response could have been sampled with) or
    whose logits aren't finite.
    """
    long, short = (torch.from_numpy(row).to(model.device) for row in ordinary(model, vocabulary, 1, LENGTHS))
    long[3] = filler(model, vocabulary)
    with torch.inference_mode(), shortened(model) as reaches:
        try:
            alone, other, begun = (_alone(model, row) for row in (long, short, long[: len(short)]))
        except UNFIT as error:
            raise InputError(f"model {name}: its forward pass doesn't run: {first_line(error)}") from error
        if not bool(torch.cat([alone, other]).isfinite().all()):
            raise NotFinite(f"model {name}: its logits are not finite, although its weights are: they are too large")
        if other_attention := _another_answer(model, long, alone):
            raise InputError(
                f"model {name}: transformers itself gives it other logits with attention {other_attention!r} than with "
                f"{model.config._attn_implementation!r}, its default; neither can be held to"
            )
        if not _exact(model, [(begun, alone[: len(short)])]):
            choice = [f"{key} = {value}" for key, value in reaches.names.items() if "topk" in key]
            raise InputError(
                f"model {name}: what comes after a token changes its logits: no causal model, which log-probs of sampled "
                f"responses need{f' (where scores tie, its choice is none: {choice[0]})' if choice else ''}"
            )
        scorer = PlainScorer(model)
        scorer.separable = has_plain_head(model) and _gives(scorer, long[None], [alone])
        padded = torch.stack([long, torch.cat([short, long[: len(long) - len(short)]])])
        scorer.pads = _gives(scorer, padded, [alone, other])
        for cache, positions in ways_on(scorer.called):
            scorer.cache, scorer.positions = cache, positions
            if _goes_on(scorer, padded):
                break
        else:
            scorer.cache = None
    return scorer


def _alone(model: Any, row: Tensor) -> Tensor:
    """float32 [N, V]"""
    logits: Tensor = model(input_ids=row[None], use_cache=False).logits[0].float()
    return logits


def _another_answer(model: Any, row: Tensor, alone: Tensor) -> str:
    """transformers' attention that gives other logits for a row than its default does; "" where there is none."""
    default = model.config._attn_implementation
    if default == "eager":
        return ""
    try:
        model.set_attn_implementation("eager")
        model.config._attn_implementation_internal = "eager"  # families without the interface look there
        eager = _alone(model, row)
    finally:
        model.config._attn_implementation_internal = default
        model.set_attn_implementation(default)
    return "" if _exact(model, [(eager, alone)]) else "eager"


def _exact(model: Any, pairs: list[tuple[Tensor, Tensor]]) -> bool:
    """Whether logits are the expected ones, [N, V] each, to rounding at every token, and finer at most of them."""
    found = torch.cat([differences(ours, theirs) for ours, theirs in pairs])
    return worst_of(model, found) < rounding(model) and float(found.median()) < rounding(model, FINE)


def _gives(scorer: PlainScorer, rows: Tensor, expected: list[Tensor]) -> bool:
    """Whether rows, int64 [B, L], give the logits that are expected at the beginning of each."""
    try:
        logits = scorer.head().logits(scorer.rows(rows))
    except UNFIT:
        return False
    return _exact(scorer.model, [(own[: len(one)], one) for own, one in zip(logits, expected, strict=True)])


def _goes_on(scorer: PlainScorer, rows: Tensor) -> bool:
    """Whether decoding in lanes with the family's cache gives what whole rows give: rows repeated, dropped and exchanged."""
    expected = torch.stack([_alone(scorer.model, row) for row in rows])
    begun, order = rows.shape[1] // 2, [1, 0, 0]
    try:
        lane = Lane(scorer, rows[:, :begun]).taken(order)
        found = [(lane.outputs, expected[order, begun - 1])]
        for place in range(begun, rows.shape[1]):
            if place == begun + 3:
                lane.keep([2, 0])
                order = [0, 1]
            found.append((lane.step(rows[order, place]), expected[order, place]))
    except UNFIT:
        return False
    return _exact(scorer.model, [(scorer.head().logits(outputs), logits) for outputs, logits in found])
