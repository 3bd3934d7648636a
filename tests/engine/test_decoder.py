"""Captured decoding steps: the same rollouts as plain ones. There may be no GPU here (recorder.py)."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from recorder import Recorder
from sampler import Sampler, of_slots
from test_native import ADDRESS, SAMPLING, assert_same, prompts
from tiny_models import tiny_policy
from torch import Tensor

import reasonloop.engine.decoder as decoder
from reasonloop.config import Sampling
from reasonloop.engine.kernel_decoder import KernelDecoder
from reasonloop.engine.native import NativeEngine
from reasonloop.engine.protocol import Request
from reasonloop.policy.logprobs import Head
from reasonloop.policy.policy import Policy, Weights


@pytest.mark.parametrize(("family", "slots"), [("llama", 3), ("qwen3", 64), ("gpt_neox", 3)])
def test_captured_steps_sample_what_plain_steps_do(family: str, slots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slots are taken, left and taken again; rows and reach are between two classes; shapes come and go."""
    monkeypatch.setattr(decoder, "WORTH", 2)
    monkeypatch.setattr(decoder, "LEAST_REACH", 12)
    policy, recorder = tiny_policy(family), Recorder()
    got = Sampler(policy, of_slots(slots, capture=recorder)).sample(prompts(9), 3, SAMPLING, ADDRESS)
    assert recorder.captured >= 3
    assert recorder.replayed > 2 * recorder.captured
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


def test_captures_are_kept_while_the_learner_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of one length class with updates in between, and the buffers as the last call has left them: the rollouts of an
    engine that has never sampled before. A call whose shapes have all been seen captures nothing."""
    monkeypatch.setattr(decoder, "WORTH", 1)
    policy, recorder = tiny_policy("qwen3"), Recorder()
    made = Sampler(policy, of_slots(6, capture=recorder))
    for update in range(3):
        sampling = SAMPLING if update != 1 else Sampling(max_tokens=9)  # shorter ones fit into what is there
        asked = prompts(6)[update:]
        expected = Sampler(policy).sample(asked, 3, sampling, ADDRESS)
        assert_same(made.sample(asked, 3, sampling, ADDRESS), expected)
        made.engine.rest()
        captured, replayed = recorder.captured, recorder.replayed
        assert_same(made.sample(asked, 3, sampling, ADDRESS), expected)
        assert recorder.captured == captured <= 6
        assert recorder.replayed - replayed >= max(len(rollout.response_tokens) for rollout in expected) - 1
        with torch.no_grad():
            for parameter in policy.model.parameters():
                parameter.mul_(0.9)


@pytest.mark.parametrize(
    "sampling", [Sampling(temperature=0.7, top_p=0.8, max_tokens=12), Sampling(min_p=0.1, top_k=30, max_tokens=12)]
)
def test_the_draw_is_captured_with_its_distribution(sampling: Sampling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "WORTH", 2)
    policy, recorder = tiny_policy(), Recorder()
    made = Sampler(policy, of_slots(capture=recorder))
    plain = Sampling(max_tokens=12)
    for one in (plain, sampling, plain):
        assert_same(made.sample(prompts(3), 1, one, ADDRESS), Sampler(policy).sample(prompts(3), 1, one, ADDRESS))
    assert recorder.captured >= 2


def moved(policy: Policy, engine: NativeEngine) -> None:
    for parameter in policy.model.parameters():
        parameter.data = parameter.data.clone()


def replaced(policy: Policy, engine: NativeEngine) -> None:
    engine.load(Weights(policy=tiny_policy()))
    engine.load(Weights(policy=policy))


def failed(policy: Policy, engine: NativeEngine) -> None:
    def stop(number: int, completion: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.generate([Request(prompts(1)[0].prompt_tokens, draw=0)], SAMPLING, stop)


@pytest.mark.parametrize("happens", [moved, replaced, failed])
def test_captures_are_dropped_with_what_they_read(
    happens: Callable[[Policy, NativeEngine], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder, "WORTH", 10**6)
    policy, engine = tiny_policy(), of_slots(capture=Recorder())
    made = Sampler(policy, engine)
    made.sample(prompts(4), 2, SAMPLING, ADDRESS)
    before = engine._decoder
    made.sample(prompts(4), 2, SAMPLING, ADDRESS)
    assert engine._decoder is before
    happens(policy, engine)
    assert_same(made.sample(prompts(4), 2, SAMPLING, ADDRESS), Sampler(policy).sample(prompts(4), 2, SAMPLING, ADDRESS))
    assert engine._decoder is not before


def test_memory_is_given_back_where_the_learner_may_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "WORTH", 2)
    policy, engine = tiny_policy(), of_slots(capture=Recorder())
    Sampler(policy, engine).sample(prompts(1), 1, SAMPLING, ADDRESS)
    assert isinstance(engine._decoder, decoder.ModuleDecoder)
    held = engine._decoder.cache.held
    monkeypatch.setattr(decoder, "free_memory", lambda device: 4 * held)
    engine.rest()
    assert engine._decoder is not None
    monkeypatch.setattr(decoder, "free_memory", lambda device: 4 * held - 1)
    engine.rest()
    assert engine._decoder is None


def test_a_kept_decoder_does_not_keep_a_policy_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "WORTH", 10**6)  # what the recorder traces is kept with its weights, unlike a graph
    policy, engine = tiny_policy(), of_slots(capture=Recorder())
    Sampler(policy, engine).sample(prompts(2), 2, SAMPLING, ADDRESS)
    assert engine._decoder is not None
    gone = weakref.ref(policy)
    del policy
    gc.collect()
    assert gone() is None


def test_size_classes_are_a_third_apart_at_most() -> None:
    classes = sorted({decoder.size_class(count) for count in range(1, 4097)})
    assert classes[:9] == [1, 2, 3, 4, 6, 8, 12, 16, 24]
    assert all(decoder.size_class(one) == one for one in classes)
    assert all(2 * high <= 3 * low for low, high in pairwise(classes[1:]))


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


def wrong(self: KernelDecoder) -> Head:
    return replace(self._head, project=lambda *given: self._head.project(*given).roll(1, -1))


def test_kernels_that_compute_something_else_are_told_of_and_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny_policy("llama")
    if KernelDecoder.of(policy) is None:
        pytest.skip("there is no C compiler")
    assert isinstance(decoder.decoder_for(policy), KernelDecoder)
    expected = Sampler(policy).sample(prompts(4), 2, SAMPLING, ADDRESS)
    monkeypatch.setattr(KernelDecoder, "head", wrong)
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
