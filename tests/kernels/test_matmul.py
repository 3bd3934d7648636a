"""Products by our kernels and by oneDNN: the same numbers and gradients as torch's own, wherever they are used."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
import torch
from tiny_models import tiny_policy
from torch import nn

from reasonloop.config import Optimizer, Sampling
from reasonloop.kernels import matmul
from reasonloop.kernels import ops as kernels
from reasonloop.learner.batch import Example, supervised
from reasonloop.learner.local import LocalLearner
from reasonloop.learner.losses import OBJECTIVES
from reasonloop.policy.policy import Policy


@pytest.fixture(autouse=True, params=["kernels", "oneDNN"])
def everywhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor where it is worth it, and for small products too; with a compiler and without."""
    if request.param == "oneDNN":
        if not torch.backends.mkldnn.is_available():
            pytest.skip("torch was built without oneDNN")
        monkeypatch.setattr(kernels, "library", lambda: None)
    elif kernels.library() is None:
        pytest.skip("there is no C compiler")
    monkeypatch.setattr(matmul, "wide", lambda: True)
    monkeypatch.setattr(matmul, "WORTH", 0)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7, 24), (2, 5, 24), (1, 24)])
def test_the_products_and_gradients_are_those_of_float64(bias: bool, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(shape, requires_grad=True), torch.randn(10, 24, requires_grad=True)
    given = torch.randn(10, requires_grad=True) if bias else None
    leaves = [leaf for leaf in (x, weight, given) if leaf is not None]
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    out = matmul.linear(x, weight, given)
    expected = nn.functional.linear(*exact)
    pull = torch.randn_like(out)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
    found = torch.autograd.grad(out, leaves, pull)
    for mine, theirs in zip(found, torch.autograd.grad(expected, exact, pull.double()), strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-5, atol=1e-5)


def test_a_part_that_needs_no_gradient_gets_none() -> None:
    x, weight = torch.randn(4, 8), torch.randn(3, 8, requires_grad=True)
    matmul.linear(x, weight).sum().backward()
    assert x.grad is None
    torch.testing.assert_close(weight.grad, x.sum(0).expand(3, 8))


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt_neox"])
def test_an_update_is_the_one_that_torchs_products_make(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    examples = [
        Example(
            rng.integers(0, 40, 6).astype(np.int32),
            rng.integers(0, 40, int(length)).astype(np.int32),
            policy_weight=np.full(int(length), 1 / 50),
            advantage=np.full(int(length), rng.choice([-1.0, 1.0])),
            behaviour=np.full(int(length), -3.0, np.float32),
        )
        for length in rng.integers(3, 12, 8)
    ]

    def updated(wide: bool) -> tuple[dict[str, float], Policy, int]:
        used: list[int] = []

        def told() -> bool:
            used.append(1)
            return wide

        monkeypatch.setattr(matmul, "wide", told)
        policy = tiny_policy(kind)
        found = LocalLearner(policy, Optimizer(), Sampling()).update(examples, 1e-3, OBJECTIVES["dapo"])
        return found, policy, len(used)

    plain, plain_policy, _ = updated(False)
    wide, wide_policy, used = updated(True)
    assert used > 10
    assert wide == pytest.approx(plain, rel=1e-4, abs=1e-5)
    for mine, theirs in zip(wide_policy.model.parameters(), plain_policy.model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


class Adapted(nn.Module):
    """A layer of another's making on top of a linear one, as adapters are."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base, self.down = base, nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.up(self.down(x))


def test_whatever_layer_calls_linear_gets_the_product_and_only_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    linear = matmul.linear
    monkeypatch.setattr(matmul, "linear", lambda *args: calls.append(1) or linear(*args))
    layer, x = Adapted(nn.Linear(24, 10)), torch.randn(5, 24)
    with suppress(KeyError), matmul.wide_matmul(torch.device("cpu")):
        inside = layer(x)
        raise KeyError
    assert len(calls) == 3
    torch.testing.assert_close(inside, layer(x), rtol=1e-5, atol=1e-5)
    assert len(calls) == 3


def test_checkpointed_layers_are_computed_again_with_the_same_product() -> None:
    """Gradient checkpointing recomputes in the backward pass: with other products it would be another policy's gradient."""
    results = []
    for checkpointing in (False, True):
        policy = tiny_policy("llama")
        learner = LocalLearner(policy, Optimizer(), Sampling(), checkpointing)
        prompt, response = np.arange(4, 9, dtype=np.int32), np.arange(9, 15, dtype=np.int32)
        learner.update(supervised([(prompt, response)]), 1e-3)
        results.append(torch.cat([p.detach().flatten() for p in policy.model.parameters()]))
    assert torch.equal(*results)


def test_where_mkl_has_the_processors_widest_vectors_it_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for vendor, capability, expected in [
        ("AuthenticAMD", "AVX512", True),
        ("AuthenticAMD", "AVX2", False),
        ("GenuineIntel", "AVX512", False),
        ("", "AVX512", False),
    ]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(matmul, "_vendor", lambda vendor=vendor: vendor)
            patch.setattr(torch.backends.cpu, "get_cpu_capability", lambda capability=capability: capability)
            patch.setattr(torch.backends.mkl, "is_available", lambda: True)
            patch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
            matmul.wide.cache_clear()
            assert matmul.wide() is expected
    matmul.wide.cache_clear()


@pytest.mark.parametrize("b_turned", [True, False])
@pytest.mark.parametrize("a_turned", [True, False])
@pytest.mark.parametrize(
    ("rows", "size", "out"),
    [(1, 1, 1), (13, 7, 33), (97, 1600, 31), (5, 3100, 64), (512, 12, 40), (30, 512, 65), (200, 1024, 3)],
)
def test_every_layout_of_the_factors_is_multiplied(
    rows: int, size: int, out: int, a_turned: bool, b_turned: bool
) -> None:
    """More inputs than a block has, rows that share places of the cache, widths that leave a panel half empty."""
    torch.manual_seed(0)
    a, b, there = torch.randn(rows, size), torch.randn(size, out), torch.randn(rows, out)
    given = (a.t().contiguous() if a_turned else a, b.t().contiguous() if b_turned else b)
    exact = a.double() @ b.double()
    tolerance = 1e-6 * size**0.5 + 1e-6
    found = matmul.multiply(*given, a_turned, b_turned)
    assert float((found - exact).abs().max()) < 10 * tolerance
    onto = there.clone()
    assert matmul.multiply(*given, a_turned, b_turned, onto=onto) is onto
    assert float((onto - there - exact).abs().max()) < 10 * tolerance
    if not a_turned:
        torch.testing.assert_close(matmul.right_factor(given[1], b_turned)(a), found)


def test_a_product_of_our_kernels_has_the_same_bits_with_any_number_of_threads() -> None:
    if kernels.library() is None:
        pytest.skip("another library's products")
    a, b = torch.randn(300, 1700), torch.randn(1700, 200)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(matmul.multiply(a, b))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
