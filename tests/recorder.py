"""What stands in for CUDA graphs: a traced program. It knows the tensor operations of one forward pass, on the tensors that
they were recorded on, and runs none of the Python around them."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx


class Recorder:
    """Captures forward passes as traced programs."""

    def __init__(self) -> None:
        self.captured = self.replayed = 0

    def __call__(self, forward: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        self.captured += 1
        result = forward().clone()  # as the warm-up: it fills the caches, once more than the replay does
        program = make_fx(forward)()

        def replay() -> None:
            self.replayed += 1
            result.copy_(program())

        return replay, result
