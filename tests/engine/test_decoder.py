"""Captured decoding steps: the same rollouts as plain ones.

There may be no GPU here. What a CUDA graph does is done by a traced program instead: it knows the tensor operations of one
forward pass, on the tensors that they were recorded on, and runs none of the Python around them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sampler import Sampler, of_slots
from test_native import ADDRESS, SAMPLING, assert_same, prompts
from tiny_models import tiny_policy
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

import reasonloop.engine.decoder as decoder
from reasonloop.config import Sampling
from reasonloop.engine.kernel_decoder import KernelDecoder
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
    got = Sampler(policy, of_slots(slots, capture=recorder)).sample(prompts(9), 3, SAMPLING, ADDRESS)
    assert recorder.captured >= 3
    assert recorder.replayed > 4 * recorder.captured
    assert_same(got, Sampler(policy).sample(prompts(9), 3, SAMPLING, ADDRESS))


def test_a_step_sees_weights_that_changed_after_its_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "WORTH", 1)
    changed = tiny_policy()
    made = Sampler(changed, of_slots(capture=Recorder()))
    made.sample(prompts(2), 2, SAMPLING, ADDRESS)
    with torch.no_grad():
        for parameter in changed.model.parameters():
            parameter.mul_(0.5)
    got = made.sample(prompts(2), 2, SAMPLING, ADDRESS)
    assert_same(got, Sampler(changed).sample(prompts(2), 2, SAMPLING, ADDRESS))


def test_a_model_that_cannot_be_captured_is_sampled_with_plain_steps(policy: Policy) -> None:
    def refuse(forward: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    made = Sampler(policy, of_slots(capture=refuse))
    with pytest.warns(UserWarning, match="not permitted when stream is capturing\\): plain steps") as told:
        got = made.sample(prompts(9), 3, SAMPLING, ADDRESS)
    assert len(told) == 1
    assert_same(got, Sampler(policy).sample(prompts(9), 3, SAMPLING, ADDRESS))


def test_rare_shapes_are_not_captured() -> None:
    recorder = Recorder()
    made = Sampler(tiny_policy(), of_slots(capture=recorder))
    made.sample(prompts(2), 1, Sampling(max_tokens=decoder.WORTH), ADDRESS, lengths=np.full(2, decoder.WORTH))
    assert recorder.captured == 0  # the first token of each comes from its prompt
    made.sample(prompts(2), 1, Sampling(max_tokens=40), ADDRESS, lengths=np.full(2, 40))
    assert recorder.captured == 1


def wrong(self: KernelDecoder, hidden: Tensor) -> Tensor:
    return self._head.logits(hidden).roll(1, -1)


def test_kernels_that_compute_something_else_are_told_of_and_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny_policy("llama")
    if KernelDecoder.of(policy) is None:
        pytest.skip("there is no C compiler")
    assert isinstance(decoder.decoder_for(policy), KernelDecoder)
    expected = Sampler(policy).sample(prompts(4), 2, SAMPLING, ADDRESS)
    monkeypatch.setattr(KernelDecoder, "logits", wrong)
    with pytest.warns(UserWarning, match=r"our decoding kernels are wrong here: .*the modules decode instead"):
        got = Sampler(policy).sample(prompts(4), 2, SAMPLING, ADDRESS)
    assert_same(got, expected)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "llama_tied"])
def test_the_check_of_the_kernels_sees_every_weight(kind: str) -> None:
    """Of one layer one weight is another one in the kernels' copy: the check must notice each of them."""
    policy = tiny_policy(kind)
    if KernelDecoder.of(policy) is None:
        pytest.skip("there is no C compiler")
    with torch.inference_mode():
        sound = decoder.disagreement(KernelDecoder(policy), decoder.ModuleDecoder(policy))
        assert sound < 1e-4
        for name in ("qkv", "output", "gated", "down"):
            damaged = KernelDecoder(policy)
            getattr(damaged.layers[1], name).weight.mul_(1.1)
            assert decoder.disagreement(damaged, decoder.ModuleDecoder(policy)) > decoder.TOLERANCE, name


def test_a_diverged_policy_is_no_fault_of_the_kernels() -> None:
    policy = tiny_policy("llama")
    with torch.no_grad():
        policy.model.model.norm.weight.fill_(float("nan"))
    if KernelDecoder.of(policy) is not None:
        assert isinstance(decoder.decoder_for(policy), KernelDecoder)
