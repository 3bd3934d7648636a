"""Captured decoding steps: the same rollouts as plain ones.

There may be no GPU here. What a CUDA graph does is done by a traced program instead: it knows the tensor operations of one
forward pass, on the tensors that they were recorded on, and runs none of the Python around them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from test_native import ADDRESS, SAMPLING, assert_same, engine, prompts
from tiny_models import tiny_policy
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

import reasonloop.engine.decoder as decoder
from reasonloop.config import Sampling
from reasonloop.engine.native import NativeEngine
from reasonloop.policy.policy import Policy


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


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt_neox"])
@pytest.mark.parametrize("slots", [3, 64])
def test_captured_steps_sample_what_plain_steps_do(family: str, slots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slots are taken, left and taken again; rows and reach are not powers of two; shapes come and go."""
    monkeypatch.setattr(decoder, "WORTH", 2)
    monkeypatch.setattr(decoder, "LEAST_REACH", 4)
    policy, recorder = tiny_policy(family), Recorder()
    captured = NativeEngine(recorder)
    captured.load(policy)
    sampling = SAMPLING.model_copy(update={"slots": slots})
    got = captured.sample(prompts(9), 3, sampling, ADDRESS)
    assert recorder.captured >= 3
    assert recorder.replayed > 4 * recorder.captured
    assert_same(got, engine(policy).sample(prompts(9), 3, sampling, ADDRESS))


def test_a_step_sees_weights_that_changed_after_its_capture(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "WORTH", 1)
    changed = tiny_policy()
    made = NativeEngine(Recorder())
    made.load(changed)
    made.sample(prompts(2), 2, SAMPLING, ADDRESS)
    with torch.no_grad():
        for parameter in changed.model.parameters():
            parameter.mul_(0.5)
    got = made.sample(prompts(2), 2, SAMPLING, ADDRESS)
    assert_same(got, engine(changed).sample(prompts(2), 2, SAMPLING, ADDRESS))


def test_a_model_that_cannot_be_captured_is_sampled_with_plain_steps(policy: Policy) -> None:
    def refuse(forward: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    made = NativeEngine(refuse)
    made.load(policy)
    with pytest.warns(UserWarning, match="not permitted when stream is capturing\\): plain steps") as told:
        got = made.sample(prompts(9), 3, SAMPLING, ADDRESS)
    assert len(told) == 1
    assert_same(got, engine(policy).sample(prompts(9), 3, SAMPLING, ADDRESS))


def test_rare_shapes_are_not_captured() -> None:
    recorder = Recorder()
    made = NativeEngine(recorder)
    made.load(tiny_policy())
    made.sample(prompts(2), 1, Sampling(max_tokens=decoder.WORTH), ADDRESS, lengths=np.full(2, decoder.WORTH))
    assert recorder.captured == 0  # the first token of each comes from its prompt
    made.sample(prompts(2), 1, Sampling(max_tokens=40), ADDRESS, lengths=np.full(2, 40))
    assert recorder.captured == 1
