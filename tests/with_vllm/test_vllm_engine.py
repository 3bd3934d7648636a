"""The vLLM engine with the real vLLM on a CPU: its log-probs are the learner's, before and after updates, under every
sampling, and weights that did not arrive are found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from global_luck import drawn, seeded
from stop_models import first_stop, policy_of
from tiny_models import EOS, tiny_policy, tokens

import reasonloop.engine.vllm as engine_vllm
from reasonloop.config import LoraSettings, Optimizer, Sampling
from reasonloop.engine.checked import CheckedEngine
from reasonloop.engine.protocol import Completion, Request
from reasonloop.engine.vllm import VllmEngine
from reasonloop.errors import RunError, Stopped
from reasonloop.learner.batch import reinforced
from reasonloop.learner.local import LocalLearner
from reasonloop.learner.losses import OBJECTIVES
from reasonloop.policy.policy import Policy, Weights
from reasonloop.records import Group, Place, Problem, Rollout

SAMPLINGS = {
    "plain": Sampling(max_tokens=24),
    "temperature": Sampling(max_tokens=24, temperature=0.7),
    "top-p": Sampling(max_tokens=24, temperature=1.3, top_p=0.8),
    "top-k": Sampling(max_tokens=24, top_k=7),
    "min-p": Sampling(max_tokens=24, min_p=0.1),
    "top-k, top-p": Sampling(max_tokens=24, top_k=20, top_p=0.7),
    "top-k, min-p": Sampling(max_tokens=24, top_k=5, min_p=0.05),
    "greedy": Sampling(max_tokens=24, top_k=1),
}
LAYOUTS = {"untied": ("llama", 0), "tied": ("llama_tied", 1), "qwen3": ("qwen3", 2)}


def made(layout: str) -> Policy:
    family, seed = LAYOUTS[layout]
    return tiny_policy(family, seed, head_dim=32)  # vLLM's kernels on a CPU have no smaller heads


@pytest.fixture(scope="module")
def engine() -> Iterator[VllmEngine]:
    found = VllmEngine(slots=16, kv_gib=0.1)
    yield found
    found.close()


def asked(groups: int = 5, size: int = 4) -> list[Request]:
    """Groups of one prompt each, some of them longer than a block of keys and values: vLLM then shares it."""
    rng = np.random.default_rng(0)
    prompts = [tokens(rng, length) for length in (3, 31, 32, 70, 100)[:groups]]
    stop = frozenset({EOS})
    return [Request(own, draw=97 * i + j + 2**63, stop=stop) for i, own in enumerate(prompts) for j in range(size)]


def apart(policy: Policy, requests: list[Request], found: list[Completion], sampling: Sampling) -> float:
    scored = policy.score([r.prompt for r in requests], [c.tokens for c in found], sampling)
    return max(float(np.abs(own - c.logprobs).max()) for own, c in zip(scored, found, strict=True))


def update(
    learner: LocalLearner, requests: list[Request], found: list[Completion], turn: int, rate: float = 1e-2
) -> None:
    """One step of RL, by default at a rate that moves the weights, with rewards at random."""
    rewards = np.random.default_rng(turn).random(len(found))
    rollouts = [
        Rollout(
            problem_id=str(i // 4),
            prompt_tokens=request.prompt,
            response_tokens=completion.tokens,
            logprobs=completion.logprobs,
            version=completion.version,
            finish=completion.finish,
            text="",
            place=Place(),
            sample=i % 4,
            reward=float(rewards[i]),
        )
        for i, (request, completion) in enumerate(zip(requests, found, strict=True))
    ]
    groups = [
        Group(Problem(str(i)), rollouts[4 * i].prompt_tokens, tuple(rollouts[4 * i : 4 * i + 4]))
        for i in range(len(rollouts) // 4)
    ]
    learner.update(reinforced(groups, OBJECTIVES["grpo"], 24), rate, OBJECTIVES["grpo"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_log_probs_are_the_learner_s_before_and_after_three_updates(engine: VllmEngine, layout: str) -> None:
    policy = made(layout)
    learner, requests = LocalLearner(policy, Optimizer(), SAMPLINGS["plain"]), asked()
    for turn in range(4):
        before = engine.generate(requests, SAMPLINGS["plain"]) if turn else []
        engine.load(learner.weights)
        for name, sampling in SAMPLINGS.items():
            found = engine.generate(requests, sampling)
            assert apart(policy, requests, found, sampling) < 1e-4, name
            assert {completion.version for completion in found} == {turn}
            if sampling.top_k == 1:
                assert all(not completion.logprobs.any() for completion in found)
        found = engine.generate(requests, SAMPLINGS["plain"])
        again = engine.generate(requests, SAMPLINGS["plain"])
        assert [c.tokens.tolist() for c in found] == [c.tokens.tolist() for c in again]
        if before:  # what the weights from before would have given is another thing
            assert apart(policy, requests, before, SAMPLINGS["plain"]) > 0.05
        update(learner, requests, found, turn)


@pytest.mark.parametrize("layout", ["untied", "tied"])
def test_weights_that_do_not_arrive_are_found(engine: VllmEngine, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of them, or a head that is the embedding."""
    policy, requests = made(layout), asked()
    checked = CheckedEngine("vllm", engine)
    learner = LocalLearner(policy, Optimizer(), SAMPLINGS["plain"])
    checked.load(learner.weights)
    found = checked.generate(requests, SAMPLINGS["plain"])
    assert checked.mismatch is not None
    assert checked.mismatch < 1e-5
    update(learner, requests, found, 0)
    if layout == "untied":
        monkeypatch.setattr(VllmEngine, "_synchronise", lambda self, weights: None)
    else:
        monkeypatch.setattr(engine_vllm, "_follow_embedding", lambda model: None)
    checked.load(learner.weights)
    for name in ("plain", "top-p", "greedy"):
        checked._unchecked = True
        with pytest.raises(RunError, match=r"its log-probs are not the learner's: .* version 1 of the weights"):
            checked.generate(requests * (8 if name == "greedy" else 1), SAMPLINGS[name])
    monkeypatch.undo()
    engine._loaded = None
    checked.load(learner.weights)
    checked.generate(requests, SAMPLINGS["plain"])
    assert checked.mismatch < 1e-5


def test_bfloat16_is_within_what_the_check_allows(engine: VllmEngine) -> None:
    policy = made("tied")
    policy.compute_in("bfloat16")
    checked = CheckedEngine("vllm", engine)
    for version, sampling in enumerate(SAMPLINGS.values()):
        checked.load(Weights(version, policy))
        checked.generate(asked(), sampling)
        assert checked.mismatch is not None
        assert checked.mismatch < 0.2 / sampling.temperature


def test_old_weights_in_bfloat16_are_found_by_their_bits(engine: VllmEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """An update that rounding hides; one that arrived is another thing."""
    policy, requests = made("tied"), asked()
    policy.compute_in("bfloat16")
    checked, learner = CheckedEngine("vllm", engine), LocalLearner(policy, Optimizer(), SAMPLINGS["plain"])
    for turn in range(2):
        checked.load(learner.weights)
        update(learner, requests, checked.generate(requests, SAMPLINGS["plain"]), turn, 1e-3)
    monkeypatch.setattr(VllmEngine, "_synchronise", lambda self, weights: None)
    checked.load(learner.weights)
    with pytest.raises(RunError, match="its weights are those of version 1 still, after version 2 was loaded"):
        checked.generate(requests, SAMPLINGS["plain"])


@pytest.mark.parametrize("layout", ["untied", "tied"])
def test_an_adapter_is_in_the_weights_that_vllm_gets(engine: VllmEngine, layout: str) -> None:
    policy, requests = made(layout), asked()
    policy.adapt(LoraSettings(4), "test")
    learner = LocalLearner(policy, Optimizer(), SAMPLINGS["plain"])
    for turn in range(3):
        engine.load(learner.weights)
        found = engine.generate(requests, SAMPLINGS["plain"])
        assert apart(policy, requests, found, SAMPLINGS["plain"]) < 1e-4
        update(learner, requests, found, turn)
        assert apart(policy, requests, found, SAMPLINGS["plain"]) > 1e-2


@pytest.mark.parametrize("name", ["plain", "top-p", "top-k, min-p"])
def test_tokens_are_drawn_as_often_as_their_log_probs_say(engine: VllmEngine, name: str) -> None:
    policy, sampling, n = made("untied"), SAMPLINGS[name].model_copy(update={"max_tokens": 1}), 4000
    engine.load(Weights(0, policy))
    prompt = tokens(np.random.default_rng(3), 40)
    found = engine.generate([Request(prompt, draw=i * 2654435761) for i in range(n)], sampling)
    counts = np.bincount([int(c.tokens[0]) for c in found], minlength=policy.vocabulary)
    seen = {int(c.tokens[0]): float(c.logprobs[0]) for c in found}
    probs = np.exp([seen.get(i, -np.inf) for i in range(policy.vocabulary)])
    chosen = (probs * n) > 8
    chi2 = float((((counts - n * probs) ** 2)[chosen] / (n * probs)[chosen]).sum())
    k = int(chosen.sum())
    assert abs(probs.sum() - 1) < 0.05
    assert chi2 < k + 5 * np.sqrt(2 * k)


def test_stops_and_lengths(engine: VllmEngine) -> None:
    policy = made("untied")
    engine.load(Weights(0, policy))
    requests = [replace(request, stop=frozenset()) for request in asked()]
    free = engine.generate(requests, SAMPLINGS["plain"])
    text = policy.codec.decode(free[0].tokens[6:8])
    stop = frozenset({int(free[1].tokens[5])})
    found = engine.generate([replace(r, stop=stop, stop_texts=(text,)) for r in requests], SAMPLINGS["plain"])
    for whole, one in zip(free, found, strict=True):
        ends = [i + 1 for i, token in enumerate(whole.tokens.tolist()) if token in stop]
        ends += [first_stop(policy, whole.tokens, (text,)) or 99]
        assert one.tokens.tolist() == whole.tokens[: min(ends)].tolist()
        assert one.finish == ("stop" if min(ends) <= 24 else "length")
        np.testing.assert_allclose(one.logprobs, whole.logprobs[: len(one.tokens)], atol=1e-4)
    lengths = [1 + 3 * i for i in range(len(requests))]
    forced = [replace(r, stop=stop, length=n) for r, n in zip(requests, lengths, strict=True)]
    assert [len(c.tokens) for c in engine.generate(forced, SAMPLINGS["plain"])] == lengths


def test_responses_are_handed_on_as_they_end_and_a_stop_leaves_the_engine_usable(engine: VllmEngine) -> None:
    policy = made("untied")
    engine.load(Weights(0, policy))
    requests = [replace(r, length=1 + i) for i, r in enumerate(asked())]
    order: list[int] = []
    engine.generate(requests[::-1], SAMPLINGS["plain"], lambda i, completion: order.append(i))
    assert order != sorted(order)
    assert sorted(order) == list(range(len(requests)))

    def stop(i: int, completion: Completion) -> None:
        raise Stopped("here")

    with pytest.raises(Stopped):
        engine.generate(requests, SAMPLINGS["plain"], stop)
    assert not engine._llm.llm_engine.has_unfinished_requests()
    found = engine.generate(requests, SAMPLINGS["plain"])
    assert apart(policy, requests, found, SAMPLINGS["plain"]) < 1e-4


def test_an_engine_that_dies_is_built_anew(engine: VllmEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, requests = made("untied"), asked()
    engine.load(Weights(0, policy))
    steps = iter(range(5))
    real = engine._llm.llm_engine.step

    def step() -> Any:
        if next(steps, None) is None:
            raise RuntimeError("EngineCore encountered an issue")
        return real()

    monkeypatch.setattr(engine._llm.llm_engine, "step", step)
    with pytest.raises(RunError, match="engine vllm has died while it sampled: RuntimeError: EngineCore"):
        engine.generate(requests, SAMPLINGS["plain"])
    engine.load(Weights(0, policy))
    found = engine.generate(requests, SAMPLINGS["plain"])
    assert apart(policy, requests, found, SAMPLINGS["plain"]) < 1e-4


def test_the_process_is_left_as_it_was(engine: VllmEngine, capfd: pytest.CaptureFixture[str]) -> None:
    expected = seeded()
    engine.close()
    engine.load(Weights(0, made("untied")))
    engine.generate(asked(), SAMPLINGS["top-p"])
    assert drawn() == expected
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    assert torch.get_num_threads() == threads + 1
    torch.set_num_threads(threads)
    assert capfd.readouterr().out == ""


def test_another_tokenizer_and_a_padded_vocabulary(engine: VllmEngine) -> None:
    policy = policy_of("bytes")
    policy = Policy(tiny_policy("llama", 0, vocab_size=policy.vocabulary, head_dim=32).model, policy.codec.tokenizer)
    engine.load(Weights(0, policy))
    requests = [Request(np.arange(4, 30, dtype=np.int32), draw=i) for i in range(12)]
    found = engine.generate(requests, SAMPLINGS["plain"])
    assert apart(policy, requests, found, SAMPLINGS["plain"]) < 1e-4
