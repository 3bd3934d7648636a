"""Ways to attend over packed streams, forward and backward of one layer, at RL's layouts.

    python benchmarks/gpu/attention.py FILE [--cpu]

On a GPU flash attention (policy/varlen.py) against chunks padded to their longest, at the shapes of Qwen3-0.6B in bfloat16;
with --cpu our kernels against the chunks at toy sizes. Writes {"device", "rows": [...], "lines": [...]}.
"""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from reasonloop.bench.ceilings import seconds_per_call
from reasonloop.bench.measure import long_tailed
from reasonloop.kernels import ops as kernels
from reasonloop.policy import varlen
from reasonloop.policy.attention import Scores
from reasonloop.policy.stream import Stream, pack


def layout(tokens: int, prompt: int, group: int, device: str) -> Stream:
    """A stream of about so many tokens: groups of long-tailed responses behind a prompt each."""
    rng, prompts, responses = np.random.default_rng(0), [], []
    mean = min(4 * prompt, (tokens - prompt) // group)
    while sum(map(len, responses)) + len(prompts) // group * prompt < tokens:
        shared = rng.integers(0, 1000, prompt).astype(np.int32)
        prompts += [shared] * group
        responses += [np.zeros(n, np.int32) for n in long_tailed(rng, group, mean, 4 * mean)]
    return pack(prompts, responses, device)


def timed(stream: Stream, heads: int, kv_heads: int, dim: int, dtype: torch.dtype) -> float:
    """Seconds of attention's forward and backward pass."""
    count, device = len(stream.tokens), stream.tokens.device
    query, key, value = (
        torch.randn(count, n, dim, device=device, dtype=dtype, requires_grad=True) for n in (heads, kv_heads, kv_heads)
    )
    pull = torch.randn(count, heads, dim, device=device, dtype=dtype)

    def both() -> None:
        out = stream.plan.attend(query, key, value, Scores(dim**-0.5))
        torch.autograd.grad(out, (query, key, value), pull)

    return seconds_per_call(both, device, 0.5)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("file", type=Path)
    options.add_argument("--cpu", action="store_true")
    args = options.parse_args()
    device, dtype = ("cpu", torch.float32) if args.cpu else ("cuda", torch.bfloat16)
    heads, kv_heads, dim = (4, 2, 32) if args.cpu else (16, 8, 128)
    sizes = ((256, 32),) if args.cpu else ((8192, 512), (16384, 512), (16384, 64))
    name = "kernels" if args.cpu else "flash"
    rows: list[dict[str, Any]] = []
    for tokens, prompt in sizes:
        for group in (1, 8):
            fast, chunks = (layout(tokens, prompt, group, device) for _ in range(2))
            row: dict[str, Any] = {"tokens": len(fast.tokens), "prompt": prompt, "group": group}
            row[name] = timed(fast, heads, kv_heads, dim, dtype)
            with ExitStack() as without:
                without.enter_context(patch.object(varlen, "usable", lambda *_: False))
                without.enter_context(patch.object(kernels, "usable", lambda *_: False))
                row["chunks"] = timed(chunks, heads, kv_heads, dim, dtype)
            visible = int((fast.positions + 1).sum())
            row["flops"] = 12.0 * heads * dim * visible
            rows.append(row)
    lines = [
        f"{row['tokens']} tokens, prompts of {row['prompt']}, groups of {row['group']}: {name} {1e3 * row[name]:.2f} ms "
        f"({row['flops'] / row[name] / 1e12:.2f} TFLOP/s), chunks {1e3 * row['chunks']:.2f} ms"
        for row in rows
    ]
    machine = {"gpu": "" if args.cpu else torch.cuda.get_device_name()}
    report = {"machine": machine, "shape": [heads, kv_heads, dim], "rows": rows, "lines": lines}
    args.file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()
