"""Whether a model computes on packed streams what it computes by itself: looked at whenever one is loaded, in the type that
it will compute in."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reasonloop.errors import InputError, first_line
from reasonloop.policy.attention import PackedPlan, Segment
from reasonloop.policy.finite import NotFinite
from reasonloop.policy.scorer import Scorer

# a foreign prompt, then a prompt with two responses: (start, length) in the stream, and what comes before each
_SEGMENTS = (Segment(0, 4), Segment(4, 5), Segment(9, 5, ((4, 5),)), Segment(14, 5, ((4, 5),)))
_POSITIONS = [*range(4), *range(10), *range(5, 10)]
_ROWS = [[*range(4)], [*range(4, 14)], [*range(4, 9), *range(14, 19)]]
_OTHERS = [*range(4), *range(9, 14)]
"""What the last row must know nothing of"""
LEAST = 1e-3
"""Of the logits' spread: what no path may differ by, however finely it computes"""


def check_packing(scorer: Scorer, vocabulary: int, name: str) -> None:
    """Raises InputError unless packed hidden states and our head give the logits of the model's own forward pass, and no
    sequence of a stream changes what another one gets.

    The first is so to rounding, which grows with the depth and the type's coarseness, of the logits' spread. The second is
    so to the last bit, whatever the type: a product's row doesn't depend on the other rows. So a layer that mixes neighbours
    outside of attention (a convolution, a recurrent state) shows itself however little it mixes. Where tokens are sorted
    by experts a product's shape depends on the neighbours, and rounding with it.
    """
    model = scorer.model
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, vocabulary, len(_POSITIONS))).to(model.device)
    others = tokens.clone()
    others[_OTHERS] = (others[_OTHERS] + 1) % vocabulary
    tolerance = rounding(model)
    try:
        with torch.inference_mode():
            packed = _packed(scorer, tokens)
            own = [model(input_ids=tokens[row][None], use_cache=False).logits[0].float() for row in _ROWS]
            worst = max(_difference(packed[row], alone) for row, alone in zip(_ROWS, own, strict=True))
            mixed = _difference(_packed(scorer, others)[_ROWS[-1]], packed[_ROWS[-1]])
    except (TypeError, AttributeError, NotImplementedError, RuntimeError, ValueError, IndexError) as error:
        raise InputError(f"model {name}: does not run on packed streams: {first_line(error)}") from error
    if not all(one.isfinite().all() for one in own):
        raise NotFinite(
            f"model {name}: its weights are finite, its logits are not: they are too large; expected those of a model "
            "whose training has not diverged"
        )
    if not worst < tolerance:
        raise InputError(
            f"model {name}: on a packed stream its logits differ by {worst:.2g} of their spread from its own forward pass "
            f"(rounding: at most {tolerance:.2g}); this architecture is not supported"
        )
    if not mixed <= (tolerance if _sorts_tokens(model) else 0.0):
        raise InputError(
            f"model {name}: on a packed stream a sequence changes the logits of another by {mixed:.2g} of their spread: a "
            "layer mixes neighbours outside of attention; this architecture is not supported"
        )


def rounding(model: Any) -> float:
    """The most that two ways of computing the same logits may differ by, of their spread: each layer rounds a few times what
    it adds to the stream, independently."""
    config = model.config.get_text_config()
    layers = int(getattr(config, "num_hidden_layers", None) or 1)
    return max(LEAST, 2 * torch.finfo(next(model.parameters()).dtype).eps * math.sqrt(layers + 1))


def _packed(scorer: Scorer, tokens: Tensor) -> Tensor:
    positions, plan = torch.tensor(_POSITIONS, device=tokens.device), PackedPlan(list(_SEGMENTS), tokens.device)
    return scorer.head().whole().logits(scorer.hidden(tokens, positions, plan))


def _difference(logits: Tensor, expected: Tensor) -> float:
    """[N, V] each: the root mean square difference at the worst of the tokens, of the spread of its logits; inf where one is
    not a number."""
    found = (logits - expected).square().mean(-1).sqrt() / expected.std(-1).clamp(min=1e-30)
    return float(found.nan_to_num(torch.inf).max())


def _sorts_tokens(model: Any) -> bool:
    return any("expert" in name for name, _ in model.named_modules())
