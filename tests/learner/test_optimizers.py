"""AdamW with moments of 8 bits: what it takes, that it goes on with the same bits, and what is said where it isn't there."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import pairs, tiny_policy

from reasonloop.config import Optimizer, Sampling
from reasonloop.errors import InputError
from reasonloop.learner.batch import supervised
from reasonloop.learner.local import LocalLearner
from reasonloop.learner.optimizers import adamw, check_optimizer

EIGHT = Optimizer(state="8bit")


def learner(options: Optimizer, dtype: str = "float32") -> LocalLearner:
    policy = tiny_policy("llama", hidden_size=64, intermediate_size=128, num_attention_heads=8)
    policy.compute_in(dtype)
    return LocalLearner(policy, options, Sampling())


def state_bytes(made: LocalLearner) -> int:
    tensors = [t for state in made.optimizer.state.values() for t in state.values() if isinstance(t, torch.Tensor)]
    return sum(t.numel() * t.element_size() for t in tensors if t.numel() != 256)  # not the code book


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_moments_of_eight_bits_go_on_with_the_same_bits(dtype: str, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    batch = supervised(list(zip(*pairs(0), strict=True)))
    whole, before = learner(EIGHT, dtype), learner(EIGHT, dtype)
    losses = [whole.update(batch, 1e-3)["loss"] for _ in range(6)]
    assert losses[-1] < losses[0]
    for _ in range(3):
        before.update(batch, 1e-3)
    before.save(tmp_path)
    from reasonloop.policy.policy import Policy

    after = LocalLearner(Policy.load(tmp_path, dtype=dtype), EIGHT, Sampling())
    after.load(tmp_path)
    for _ in range(3):
        after.update(batch, 1e-3)
    for ours, theirs in zip(whole.parameters, after.parameters, strict=True):
        assert torch.equal(ours, theirs)


def test_moments_of_eight_bits_take_a_quarter() -> None:
    pytest.importorskip("bitsandbytes")
    batch = supervised(list(zip(*pairs(0), strict=True)))
    small, plain = learner(EIGHT), learner(Optimizer())
    for one in (small, plain):
        one.update(batch, 1e-3)
    count = sum(p.numel() for p in plain.parameters)
    assert state_bytes(plain) == pytest.approx(8 * count, rel=0.01)
    assert state_bytes(small) < 3 * count  # small matrices stay in float32


def test_where_bitsandbytes_is_missing_a_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(InputError, match=r"optimizer.state = \"8bit\".*pip install 'reasonloop\[optim\]'"):
        adamw([torch.nn.Parameter(torch.zeros(2))], EIGHT)
    with pytest.raises(InputError, match=r"offload = true: moves a GPU's memory"):
        check_optimizer(Optimizer(offload=True), "cpu")
    check_optimizer(Optimizer(), "cpu")


def test_torchs_own_is_the_default() -> None:
    made = adamw([torch.nn.Parameter(torch.zeros(2))], Optimizer(betas=(0.8, 0.9), weight_decay=0.1))
    assert type(made) is torch.optim.AdamW
    assert made.defaults["betas"] == (0.8, 0.9)
    assert np.isclose(made.defaults["weight_decay"], 0.1)
