"""Drawing tokens from logits, by uniforms that have an address."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from reasonloop.config import Sampling
from reasonloop.policy.logprobs import Head, NoHead, tempered

BLOCKS = (256, 128, 64)
"""How many tokens are summed in float32: the first that the vocabulary is a multiple of, so that nothing needs to be padded;
else the first"""


def uniforms(draws: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The uniform in [0, 1) of each (draw, position): uint64 [B], int [B] -> float64 [B]. SplitMix64 as a counter."""
    with np.errstate(over="ignore"):
        x = draws.astype(np.uint64) + (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53


def drawn(
    head: Head | NoHead, hidden: Tensor, uniforms: np.ndarray, sampling: Sampling
) -> tuple[np.ndarray, np.ndarray]:
    """`draw` behind hidden states [B, D], and what it gives as arrays. From a GPU that is one transfer."""
    logits = head.logits(hidden)
    found = draw(logits, torch.from_numpy(uniforms).to(logits.device), sampling, head.absent)
    if not logits.is_cuda:
        return found[0].numpy(), found[1].numpy()
    return unpacked(together(*found))


def together(tokens: Tensor, logprobs: Tensor) -> Tensor:
    """float64 [2, B], which holds both exactly"""
    return torch.stack([tokens.double(), logprobs.double()])


def unpacked(both: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """What `together` has put into one tensor: int64 [B], float32 [B]"""
    tokens, logprobs = both.cpu().numpy()
    return tokens.astype(np.int64), logprobs.astype(np.float32)


def draw(logits: Tensor, uniforms: Tensor, sampling: Sampling, absent: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """One token a row by inverse CDF: float32 [B, V] (overwritten), float64 [B] in [0, 1) -> int64 [B], float32 [B] nats.

    The log-probs are of the distribution really drawn from: temperature, top-k, top-p and min-p included. The CDF is a
    float64 sum over blocks of float32 sums, so that rounding doesn't grow with the vocabulary. The tokens `absent` (int64
    [K]) are never drawn; without truncation they keep their share, as in `Head.absent`. A row with NaN or +inf
    logits gets any token, with a log-prob of NaN.
    """
    logits = tempered(logits, sampling, absent=absent)
    others = None
    if absent is not None and not sampling.truncated:
        others = logits.index_select(1, absent).double()
        logits = logits.index_fill_(1, absent, float("-inf"))
    top = logits.amax(-1, keepdim=True)
    weights = (logits - top).exp_()
    rows, vocabulary = weights.shape
    size = next((size for size in BLOCKS if vocabulary % size == 0), BLOCKS[0])
    if vocabulary % size:
        weights = torch.nn.functional.pad(weights, (0, -vocabulary % size))
    padded = weights.view(rows, -1, size)
    blocks = padded.sum(-1).cumsum(-1, dtype=torch.float64)  # [B, V / size]
    total = blocks[:, -1:]
    point = torch.minimum(uniforms[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    block = torch.searchsorted(blocks, point, right=True)  # first block whose cumulated weight passes the point
    block = block.clamp(max=blocks.shape[-1] - 1)  # NaN passes them all
    before = blocks.gather(1, (block - 1).clamp(min=0)).masked_fill_(block == 0, 0.0)
    inside = padded.gather(1, block[:, :, None].expand(-1, -1, size))[:, 0].double()
    place = torch.searchsorted(inside.cumsum(-1), point - before, right=True)
    # rounding between the two sums may point just past the block's last token with any weight
    last = size - 1 - (inside > 0).flip(-1).to(torch.int64).argmax(-1, keepdim=True)
    token = (block * size + torch.minimum(place, last)).clamp(max=vocabulary - 1)
    if others is not None:
        total = total + (others - top).exp_().sum(-1, keepdim=True)
    logprob = logits.gather(1, token) - top - torch.log(total).float()
    return token[:, 0], logprob[:, 0]
