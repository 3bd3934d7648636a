"""What flash attention computes, in plain operations on a CPU: sequences behind one another, each query of Lq seeing the
keys up to Lk - Lq + its own number, and no more than `window_size[0]` before that.

As Dao-AILab/flash-attention has it since 2.1 (README, "bottom right corner"; csrc/flash_attn/src/mask.h: a column is
hidden from row + 1 + Lk - Lq + right on, and before row + Lk - Lq - left), which torch's `varlen_attn` calls.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from reasonloop.policy import varlen


def varlen_attn(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
) -> Tensor:
    """torch 2.11's signature. query [Tq, H, D], key and value [Tk, Hkv, D]; ends int32 [S + 1] -> [Tq, H, D]."""
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    assert int(cu_seq_q[-1]) == len(query)
    assert int(cu_seq_k[-1]) == len(key) == len(value)
    assert window_size[1] == 0, "not causal"
    out = []
    for i in range(len(cu_seq_q) - 1):
        q = query[cu_seq_q[i] : cu_seq_q[i + 1]]
        k, v = (x[cu_seq_k[i] : cu_seq_k[i + 1]] for x in (key, value))
        k, v = (x.repeat_interleave(query.shape[1] // key.shape[1], 1) for x in (k, v))
        assert len(q) <= max_q
        assert len(k) <= max_k
        last = torch.arange(len(q))[:, None] + len(k) - len(q)
        column = torch.arange(len(k))[None, :]
        hidden = column > last
        if window_size[0] >= 0:
            hidden = hidden | (column < last - window_size[0])
        scores = torch.einsum("qhd,khd->hqk", q, k) * (scale if scale is not None else q.shape[-1] ** -0.5)
        out.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, -torch.inf).softmax(-1), v))
    return torch.cat(out)


def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Streams are attended to as on a GPU, in any precision; returns the calls' windows, as they come."""
    calls: list[Any] = []

    def called(*args: Any, **options: Any) -> Tensor:
        calls.append(options["window_size"])
        return varlen_attn(*args, **options)

    monkeypatch.setattr(varlen, "attention", called)
    monkeypatch.setattr(varlen, "usable", lambda *_: True)
    return calls
