"""The vLLM engine with a stand-in for vLLM that records its calls; with the real one: tests/vllm."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_vllm
import numpy as np
import pytest
import torch
from global_luck import drawn, seeded
from stop_models import first_stop
from tiny_models import EOS, tiny_policy, tokens

import reasonloop.engine.vllm as engine_vllm
import reasonloop.engine.vllm_guest as guest
from reasonloop.config import EngineOptions, Sampling
from reasonloop.engine.protocol import Completion, Request
from reasonloop.engine.registry import engine_of
from reasonloop.engine.vllm import VllmEngine
from reasonloop.errors import InputError, RunError, Stopped
from reasonloop.policy.policy import Policy, Weights

SAMPLING = Sampling(max_tokens=12)


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> type[fake_vllm.LLM]:
    return fake_vllm.install(monkeypatch, cpu=False)


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def asked(n: int = 6, **options: Any) -> list[Request]:
    rng = np.random.default_rng(0)
    return [Request(tokens(rng, 1 + i), draw=i + 2**63, **options) for i in range(n)]


def step(policy: Policy) -> None:
    """An update in place, as a learner's."""
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(0.01 * torch.sign(parameter))


def sampled(engine: Any, policy: Policy, requests: list[Request] | None = None) -> list[Completion]:
    """What the engine gives, whose log-probs are the policy's."""
    requests = requests or asked()
    found = engine.generate(requests, SAMPLING)
    scored = policy.score([r.prompt for r in requests], [c.tokens for c in found], SAMPLING)
    for completion, own in zip(found, scored, strict=True):
        np.testing.assert_allclose(completion.logprobs, own, atol=1e-5)
    return found


@pytest.mark.parametrize("family", ["llama", "llama_tied"])
def test_the_order_of_calls_on_a_gpu(vllm: type[fake_vllm.LLM], family: str) -> None:
    """Weights are sent whenever there are new ones, and after each sleep, which loses them, before room for keys and values
    is taken; a head that is the embedding follows it; nothing computed with other weights is kept."""
    policy, engine = tiny_policy("llama"), VllmEngine(slots=8, memory=0.3, context=64)
    follow = ["apply"] if family == "llama_tied" else []
    policy.model.config.tie_word_embeddings = family == "llama_tied"
    engine.load(Weights(0, policy))
    assert vllm.calls == ["build", "reload", *follow, "reset"]
    options = vllm.made[0].options
    assert options["gpu_memory_utilization"] == 0.3
    assert (options["max_num_seqs"], options["max_model_len"], options["dtype"]) == (8, 64, "float32")
    assert (options["enable_sleep_mode"], options["enforce_eager"]) == (True, False)
    assert (options["logprobs_mode"], options["load_format"]) == ("processed_logprobs", "dummy")
    vllm.calls.clear()
    engine.load(Weights(0, policy))
    assert vllm.calls == []  # these it has
    sampled(engine, policy)
    engine.rest()
    engine.rest()
    assert vllm.calls == [("sleep", 2)]
    with pytest.raises(RunError, match=r"call load\(\) first"):
        engine.generate(asked(), SAMPLING)
    vllm.calls.clear()
    for version in (0, 1):
        engine.load(Weights(version, policy))
        assert vllm.calls == [("wake", "weights"), "reload", *follow, ("wake", "kv_cache"), "reset"]
        sampled(engine, policy)
        step(policy)
        engine.rest()
        vllm.calls.clear()
    engine.close()
    assert vllm.calls == ["shutdown"]


def test_on_a_cpu_nothing_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    vllm, policy, engine = fake_vllm.install(monkeypatch, cpu=True), tiny_policy(), VllmEngine(kv_gib=0.5)
    engine.load(Weights(0, policy))
    options = vllm.made[0].options
    assert (options["kv_cache_memory_bytes"], options["enforce_eager"]) == (2**29, True)
    assert "enable_sleep_mode" not in options
    engine.rest()
    sampled(engine, policy)
    assert vllm.calls == ["build", "reload", "reset"]


def test_weights_are_known_by_more_than_their_number(vllm: type[fake_vllm.LLM]) -> None:
    """Each stage of a run counts its updates from 0, and policies come and go."""
    engine, policy = VllmEngine(), tiny_policy()
    engine.load(Weights(0, policy))
    step(policy)
    engine.load(Weights(0, policy))
    sampled(engine, policy)
    for seed in range(1, 4):
        del policy
        policy = tiny_policy(seed=seed)
        engine.load(Weights(0, policy))
        sampled(engine, policy)
    assert vllm.calls.count("reload") == 5
    assert vllm.calls.count("build") == 1  # all are of one layout
    policy.compute_in("bfloat16")
    engine.load(Weights(0, policy))
    assert vllm.calls[-4:] == ["shutdown", "build", "reload", "reset"]
    assert vllm.made[-1].options["dtype"] == "bfloat16"


def test_a_folder_s_weights(vllm: type[fake_vllm.LLM], tmp_path: Path) -> None:
    policy = tiny_policy(seed=5)
    policy.save(tmp_path / "model")
    engine = VllmEngine()
    engine.load(Weights(3, folder=tmp_path / "model"))
    engine.load(Weights(3, folder=tmp_path / "model"))
    assert vllm.calls == ["build", "reload", "reset"]
    assert {completion.version for completion in sampled(engine, policy)} == {3}


def test_a_model_of_which_a_half_is_new_is_given_up(vllm: type[fake_vllm.LLM], monkeypatch: pytest.MonkeyPatch) -> None:
    engine, policy = VllmEngine(), tiny_policy()
    engine.load(Weights(0, policy))
    monkeypatch.setattr(vllm, "reload_fails_at", 3)
    with pytest.raises(RunError, match="didn't take the weights: ValueError: no such weight; nothing that was stored"):
        engine.load(Weights(1, policy))
    monkeypatch.setattr(vllm, "reload_fails_at", None)
    with pytest.raises(RunError, match="call load"):
        engine.generate(asked(), SAMPLING)
    engine.load(Weights(1, policy))
    assert vllm.calls.count("build") == 2
    sampled(engine, policy)


def test_an_engine_that_dies_is_one_line_and_the_next_load_builds_another(vllm: type[fake_vllm.LLM]) -> None:
    engine, policy = VllmEngine(), tiny_policy()
    engine.load(Weights(0, policy))
    vllm.made[0].llm_engine.fails = RuntimeError("CUDA error: an illegal memory access\nwith more lines")
    with pytest.raises(RunError) as told:
        engine.generate(asked(), SAMPLING)
    assert str(told.value).startswith(
        "engine vllm has died while it sampled: RuntimeError: CUDA error: an illegal memory"
    )
    assert "\n" not in str(told.value)
    engine.load(Weights(0, policy))
    sampled(engine, policy)
    assert len(vllm.made) == 2


def test_stops_and_lengths(vllm: type[fake_vllm.LLM]) -> None:
    """Stop tokens are kept, a text ends a response with the first token behind which it stands, a given length with
    nothing."""
    engine, policy = VllmEngine(), tiny_policy()
    engine.load(Weights(4, policy))
    free = sampled(engine, policy)
    text = policy.codec.decode(free[0].tokens[4:7])
    stop = frozenset({EOS, int(free[1].tokens[5])})
    told: list[int] = []
    requests = asked(stop=stop, stop_texts=(text, "never ever said"))
    found = engine.generate(requests, SAMPLING, lambda i, completion: told.append(i))
    for whole, one in zip(free, found, strict=True):
        ends = [i + 1 for i, token in enumerate(whole.tokens.tolist()) if token in stop]
        ends += [first_stop(policy, whole.tokens, (text,)) or 99]
        assert one.tokens.tolist() == whole.tokens[: min(ends)].tolist()
        assert one.finish == ("stop" if min(ends) <= len(whole.tokens) else "length")
        np.testing.assert_array_equal(one.logprobs, whole.logprobs[: len(one.tokens)])
        assert one.version == 4
    assert len(found[0].tokens) == 7
    assert told[0] != 0
    assert sorted(told) == list(range(6))
    forced = engine.generate(asked(stop=stop, stop_texts=(text,), length=20), SAMPLING)
    assert {(len(one.tokens), one.finish) for one in forced} == {(20, "length")}
    assert not vllm.made[0].llm_engine.asked


def test_who_stops_a_call_stops_it_at_once(vllm: type[fake_vllm.LLM]) -> None:
    engine, policy = VllmEngine(), tiny_policy()
    engine.load(Weights(0, policy))

    def stop(i: int, completion: Completion) -> None:
        raise Stopped("here")

    with pytest.raises(Stopped):
        engine.generate(asked(stop=frozenset(range(2, 20))), SAMPLING, stop)
    assert not vllm.made[0].llm_engine.asked  # nothing goes on
    sampled(engine, policy)
    assert vllm.calls.count("build") == 1


def test_the_process_is_left_as_it_was(vllm: type[fake_vllm.LLM], capfd: pytest.CaptureFixture[str]) -> None:
    """Random states, torch's threads, the environment of processes that are started later, stdout."""
    set_threads, threads = torch.set_num_threads, torch.get_num_threads()
    os.environ["LD_PRELOAD"] = "mine.so"

    expected = seeded()
    engine, policy = VllmEngine(), tiny_policy()
    engine.load(Weights(0, policy))
    engine.generate(asked(), SAMPLING)
    assert drawn() == expected
    assert torch.set_num_threads is set_threads
    assert torch.get_num_threads() == threads
    assert os.environ["LD_PRELOAD"] == "mine.so"
    assert "LOCAL_WORLD_SIZE" not in os.environ
    assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"slots": 0}, "engine.slots = 0: expected a whole number of at least 1"),
        ({"memory": 1.5}, "engine.memory = 1.5: expected a share of the GPU's memory"),
        ({"kv_gib": "2"}, "engine.kv_gib = '2': expected GiB, above 0"),
        ({"context": -1}, "engine.context = -1: expected tokens"),
        ({"eager": 1}, "engine.eager = 1: expected true or false"),
        ({"tolerance": -1}, "engine.tolerance = -1: expected nats"),
        ({"speed": 1}, "its options {'speed': 1} were refused"),
    ],
)
def test_options_are_checked(vllm: type[fake_vllm.LLM], options: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError) as told:
        engine_of(EngineOptions.model_validate({"name": "vllm", **options}))
    assert expected in str(told.value)
    assert vllm.calls == []


def test_no_vllm_an_old_one_and_one_that_was_set_up_otherwise(
    vllm: type[fake_vllm.LLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest, "_version", lambda: "0.19.1")
    with pytest.raises(InputError, match=r"vLLM 0.19.1 is installed; expected 0.32 or newer \(pip install"):
        VllmEngine()
    monkeypatch.setattr(guest.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="vLLM is not installed; expected it"):
        VllmEngine()
    monkeypatch.setattr(engine_vllm, "expect_vllm", lambda: None)
    import vllm as stand_in

    monkeypatch.setattr(stand_in.envs, "VLLM_ENABLE_V1_MULTIPROCESSING", True)
    with pytest.raises(InputError, match="another vLLM engine"):
        VllmEngine().load(Weights(0, tiny_policy()))


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(top_p=0.9, min_p=0.1), "engine vllm applies min-p first"),
        (Sampling(temperature=0.005), "engine vllm raises it to 0.01"),
        (Sampling(max_tokens=62), r"vLLM has room for 64 tokens, a prompt of 3 and its response need 65"),
    ],
)
def test_what_vllm_would_do_otherwise_is_refused(vllm: type[fake_vllm.LLM], sampling: Sampling, expected: str) -> None:
    engine = VllmEngine(context=64)
    engine.load(Weights(0, tiny_policy()))
    with pytest.raises(InputError, match=expected):
        engine.generate(asked(), sampling)
