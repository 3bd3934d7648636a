"""What a machine can compute and what a model asks of it: matrix peak, bandwidth, ceilings, floating point operations.

Every number is measured on the spot; nothing is looked up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from reasonloop.kernels.matmul import right_factor
from reasonloop.kernels.ops import Panels, usable
from reasonloop.policy.shape import Cost
from reasonloop.policy.stream import Stream

SQUARES = (512, 1024, 2048)
GPU_SQUARES = (4096, 8192)
"""On a GPU also these: smaller products don't fill it"""


def seconds_per_call(call: Callable[[], Any], device: str | torch.device = "cpu", budget: float = 0.2) -> float:
    """The fastest of repeated calls within `budget` seconds, after a warm-up; a GPU's queue is waited for.

    The fastest, since a machine's ceiling is what it does when nobody disturbs it. Calls are timed in blocks of at least
    half a millisecond, so that the clock and a GPU's launches don't count.
    """
    wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else (lambda: None)

    def block(calls: int) -> float:
        wait()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        wait()
        return (time.perf_counter() - start) / calls

    block(1)
    calls = max(1, min(1000, int(5e-4 / max(block(1), 1e-9))))
    best, deadline = block(calls), time.perf_counter() + budget
    while time.perf_counter() < deadline:
        best = min(best, block(calls))
    return best


def matrix_peak(
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    shapes: Sequence[tuple[int, int, int]] = (),
    torchs: bool = False,
) -> float:
    """The best FLOP/s of matrix products [m, k] @ [k, n]: square ones, and the model-shaped (m, k, n) in `shapes`.

    At torch's current number of threads. Of the products that the learner can choose from (`kernels.matmul`), or
    `torchs` own alone.
    """
    best = 0.0
    squares = (*SQUARES, *GPU_SQUARES) if torch.device(device).type == "cuda" else SQUARES
    for m, k, n in [*((size, size, size) for size in squares), *shapes]:
        a = torch.randn(m, k, device=device).to(dtype)
        b = torch.randn(n, k, device=device).to(dtype).t()  # as weights lie: [out, in]
        out = torch.empty(m, n, device=device, dtype=dtype)
        ways: list[Callable[[], Any]] = [partial(torch.mm, a, b, out=out)]
        if not torchs:
            ways.append(partial(right_factor(b), a))
        best = max(best, *(2.0 * m * k * n / seconds_per_call(way, device) for way in ways))
    return best


def memory_bandwidth(device: str | torch.device = "cpu") -> float:
    """Bytes read per second when a buffer larger than the caches is summed: what decoding's weights and keys cost."""
    buffer = torch.ones(1 << 26, device=device)  # 256 MB of float32
    return 4.0 * buffer.numel() / seconds_per_call(buffer.sum, device)


def peaks(model: Any, dtype: torch.dtype) -> dict[str, float]:
    """What the machine reaches at the shapes of a model's matrices, each with 1,024 rows."""
    shapes = list(dict.fromkeys((1024, weight.shape[1], weight.shape[0]) for weight in matrices(model)))
    flops, torchs = (matrix_peak(model.device, dtype, shapes, torchs=only) for only in (False, True))
    return {"flops": flops, "torch_flops": torchs, "bytes_per_second": memory_bandwidth(model.device)}


def matrices(model: Any) -> list[torch.Tensor]:
    """The weights that a decoded token is multiplied with, each [out, in]: all linear layers and the head (tied or not).

    The embedding table is looked up, not multiplied, and is not in it.
    """
    found = []
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            found.append(module.weight)
        elif isinstance(module, Conv1D):  # GPT-2's layers keep [in, out]
            found.append(module.weight.t())
    return found


def cost_of(model: Any) -> Cost:
    """As the model's modules have it."""
    config = model.config.get_text_config()
    head = model.get_output_embeddings().weight.numel()
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    shared = getattr(config, "num_key_value_heads", None) or heads
    layers = config.num_hidden_layers
    body = sum(weight.numel() for weight in matrices(model)) - head
    return Cost(body, head, layers * heads * size, 2 * layers * shared * size)


def stream_flops(cost: Cost, stream: Stream) -> float:
    """Training FLOPs of a packed stream: each token sees those of its own sequence up to itself (windows ignored)."""
    return cost.training_flops(len(stream.tokens), len(stream.targets), int((stream.positions + 1).sum()))


def decoding_ceiling(model: Any, batch: int, laid_out: bool = False) -> float:
    """Tokens/s that decoding `batch` responses at once could reach if the model were its matrix products alone.

    A bare loop over all matrices with inputs [batch, in]: no attention, no norms, no sampling, no Python around it. The
    products are torch's plain ones, or, `laid_out`, those of sampling, with the weights as it lays them out.
    """
    weights = matrices(model)
    inputs = {w.shape[1]: torch.randn(batch, w.shape[1], device=w.device, dtype=w.dtype) for w in weights}
    products = [Panels(w) if laid_out and usable(w) else partial(torch.nn.functional.linear, weight=w) for w in weights]

    def step() -> None:
        for product, weight in zip(products, weights, strict=True):
            product(inputs[weight.shape[1]])

    with torch.inference_mode():
        return batch / seconds_per_call(step, model.device, 0.3)
