"""Where an update's time goes on a GPU, by what each part must compute and move: python benchmarks/gpu/roofline.py [TOKENS]

Reasoned, not measured: Qwen3-0.6B in bfloat16 on one stream of TOKENS packed tokens (default 16384), one sequence (SFT) or a
group of 8 behind a prompt (RL), at rates that one H100 has been seen to reach. Bytes are those of the operations as they run
one after another; what a part is before and after a change stands side by side.
"""

from __future__ import annotations

import sys

LAYERS, HIDDEN, INNER, HEADS, KV, DIM, WORDS = 28, 1024, 3072, 16, 8, 128, 151936
BODY = LAYERS * (HIDDEN * DIM * (HEADS + 2 * KV) + HEADS * DIM * HIDDEN + 3 * HIDDEN * INNER)
PRODUCTS, FLASH, BANDWIDTH, PEAK = 650e12, 330e12, 2.6e12, 989.5e12
"""FLOP/s of bfloat16 matrix products and of flash attention 2 (causal, heads of 128, forward and backward together), bytes/s
of passes over memory; the data sheet's peak"""

NORMED = 2 * HIDDEN + (HEADS + KV) * DIM
"""Elements of a token that a layer's norms see"""
OWN_NORM, FUSED_NORM = 36, 4
"""Bytes an element and forward pass: eight operations in float32 and bfloat16, or one"""
ROTATED, GATED, ADDED = 20 * (HEADS + KV) * DIM, 10 * INNER, 6 * 2 * HIDDEN
HEAD_PASSES = 95
"""Bytes a logit, forward and backward: made twice, log-sum-exp, softmax, entropy, its own gradient"""
ADAM = 52
"""Bytes a parameter: gradients to float32, their norm and clip, both moments, the step, the rounded copy"""


def attention(tokens: int, sequences: int, prompt: int) -> float:
    """Seconds of the visible pairs; what a backward pass computes again is in the rate."""
    length = (tokens - prompt) // sequences
    pairs = prompt**2 / 2 + sequences * (prompt * length + length**2 / 2)
    return 12.0 * LAYERS * HEADS * DIM * pairs / FLASH


def parts(tokens: int, sequences: int, prompt: int, chunk: int, norm: int) -> dict[str, float]:
    """Seconds by part. `chunk`: logits at once; `norm`: bytes of a norm."""
    chunks = tokens * WORDS / chunk
    elements = NORMED * norm + ROTATED + GATED + ADDED
    return {
        "products of the body": 6.0 * BODY * tokens / PRODUCTS,
        "attention": attention(tokens, sequences, prompt),
        "products of the head (logits made twice)": 8.0 * WORDS * HIDDEN * tokens / PRODUCTS,
        "head's weight, read in each chunk": chunks * 5 * 2 * WORDS * HIDDEN / BANDWIDTH,
        "passes over logits": HEAD_PASSES * WORDS * tokens / BANDWIDTH,
        "norms": 3 * LAYERS * NORMED * norm * tokens / BANDWIDTH,
        "rotations, gates, sums": 3 * LAYERS * (elements - NORMED * norm) * tokens / BANDWIDTH,
        "optimizer": ADAM * (BODY + WORDS * HIDDEN) / BANDWIDTH,
    }


def main() -> None:
    tokens = int(sys.argv[1]) if len(sys.argv) > 1 else 16384
    for kind, sequences, prompt in (("SFT, one sequence", 1, 0), ("RL, 8 behind a prompt", 8, tokens // 9)):
        before = parts(tokens, sequences, prompt, 1 << 24, OWN_NORM)
        after = parts(tokens, sequences, prompt, 1 << 28, FUSED_NORM)
        useful = 6.0 * (BODY + WORDS * HIDDEN) * tokens + attention(tokens, sequences, prompt) * FLASH
        print(f"\n{kind}, {tokens:,} packed tokens, milliseconds before and after")
        for name in before:
            print(f"{name:42}{1e3 * before[name]:8.0f}{1e3 * after[name]:8.0f}")
        for name, found in (("before", before), ("after", after)):
            seconds = sum(found.values())
            print(
                f"{name}: {1e3 * seconds:.0f} ms, {tokens / seconds:,.0f} tokens/s, {useful / seconds / PEAK:.0%} MFU"
            )


if __name__ == "__main__":
    main()
