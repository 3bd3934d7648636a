"""Where the tests of the GPU path run: on a GPU, or with REASONLOOP_TEST_DEVICE=cpu on a CPU with stand-ins for what only a
GPU has (captured graphs, flash attention), as `benchmarks/gpu/check.sh --cpu` does."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> str:
    import torch

    if os.environ.get("REASONLOOP_TEST_DEVICE") == "cpu":
        import flash_attention

        from reasonloop.kernels import ops

        flash_attention.on_a_cpu(monkeypatch)
        monkeypatch.setattr(ops, "library", lambda: None)
        return "cpu"
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    return "cuda"
