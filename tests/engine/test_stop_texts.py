"""Stop texts of several tokens: a response is what it would have been, up to the token that completes one."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_fixtures import command, metrics, outcome, small_recipe
from sampler import Sampler, at, of_slots, prompt
from stop_models import KINDS, SAID, first_stop, policy_of

import reasonloop.engine.native as native
from reasonloop.cli import main
from reasonloop.config import Sampling
from reasonloop.engine.native import NativeEngine
from reasonloop.engine.protocol import Request
from reasonloop.engine.stop_text import LEAST, stops
from reasonloop.policy.policy import Policy, Weights
from reasonloop.records import Group, Rollout
from reasonloop.store.segments import TrajectoryStore

LONG = 120


def prompts(policy: Policy, count: int, seed: int = 0) -> list[Group]:
    rng = np.random.default_rng(seed)
    high = len(policy.codec.tokenizer)
    return [prompt(f"p{i}", rng.integers(4, high, int(rng.integers(1, 20))).astype(np.int32)) for i in range(count)]


def cut(policy: Policy, free: Rollout, texts: tuple[str, ...]) -> tuple[list[int], np.ndarray, str]:
    """What a response is with stop texts, made of the one without: tokens, log-probs, finish."""
    at = first_stop(policy, free.response_tokens, texts)
    if at is None:
        return free.response_tokens.tolist(), free.logprobs, free.finish
    return free.response_tokens[:at].tolist(), free.logprobs[:at], "stop"


def some_texts(policy: Policy, rollouts: list[Rollout], draw: st.DrawFn) -> tuple[str, ...]:
    """Parts of what was said, which begin and end inside of words and tokens, and texts that may never be said."""
    said = [r.text for r in rollouts if r.text] or ["x"]

    def part() -> str:
        text = draw(st.sampled_from(said))
        start = draw(st.integers(0, len(text) - 1))
        return text[start : start + draw(st.integers(1, 12))]

    def usable(text: str) -> bool:
        ids = policy.codec.tokenizer(text, add_special_tokens=False).input_ids if text and "\ufffd" not in text else [0]
        return len(ids) != 1 and policy.codec.tokenizer.unk_token_id not in ids

    texts = [part() for _ in range(draw(st.integers(1, 3)))]
    return tuple(text for text in texts if usable(text)) or ("answer yes",)


FREE: dict[tuple[str, int], list[Rollout]] = {}


def sampled_freely(kind: str, seed: int) -> list[Rollout]:
    if (kind, seed) not in FREE:
        policy = policy_of(kind, seed)
        FREE[kind, seed] = Sampler(policy, of_slots(1)).sample(
            prompts(policy, 4), 3, Sampling(max_tokens=LONG), at(seed)
        )
    return FREE[kind, seed]


def test_what_is_sampled_freely_is_long_and_broken_enough_to_mean_something() -> None:
    every = [r for kind in KINDS for seed in range(3) for r in sampled_freely(kind, seed)]
    assert max(len(r.response_tokens) for r in every) == LONG > 4 * LEAST
    assert len({len(r.response_tokens) for r in every}) > 20
    assert any("\ufffd" in r.text for r in every)


@settings(max_examples=60)
@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 2),
    slots=st.sampled_from([1, 2, 3, 5, 64]),
    prefill=st.sampled_from([1, 25, 4096]),
    data=st.data(),
)
def test_a_response_is_the_free_one_cut_at_the_first_token_that_completes_a_text(
    kind: str, seed: int, slots: int, prefill: int, data: st.DataObject
) -> None:
    """In any number of slots: few force refills and compaction, and with it that a tail moves with its response."""
    policy, free = policy_of(kind, seed), sampled_freely(kind, seed)
    texts = some_texts(policy, free, data.draw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "PREFILL_TOKENS", prefill)
        sampling = Sampling(max_tokens=LONG, stop=texts)
        found = Sampler(policy, of_slots(slots)).sample(prompts(policy, 4), 3, sampling, at(seed))
    for one, whole in zip(found, free, strict=True):
        tokens, logprobs, finish = cut(policy, whole, texts)
        assert (one.response_tokens.tolist(), one.finish) == (tokens, finish)
        assert one.text == policy.codec.decode(one.response_tokens)
        if slots == 1:
            assert one.logprobs.tobytes() == logprobs.tobytes()
        np.testing.assert_allclose(one.logprobs, logprobs, rtol=0, atol=1e-5)


@settings(max_examples=200)
@given(kind=st.sampled_from(KINDS), data=st.data())
def test_the_tail_says_what_the_whole_says(kind: str, data: st.DataObject) -> None:
    """Without a model: text of all kinds in tokens, whole characters and broken ones, special tokens in between."""
    policy = policy_of(kind)
    decode, tokenizer = policy.codec.decode, policy.codec.tokenizer
    words = st.sampled_from([*SAID, "answer yes = ( 3 + 4 ) ; back", "</answer>", "\n\n", "🙂", " ", "ü", "x" * 9])
    text = words.map(lambda said: tokenizer(said, add_special_tokens=False).input_ids)
    noise = st.lists(st.integers(0, policy.codec.vocabulary - 1), max_size=6)
    parts = data.draw(st.lists(text | noise | st.just([tokenizer.eos_token_id] * 9), max_size=12))
    tokens = np.array([token for part in parts for token in part], np.int64)
    said = decode(tokens)
    start = data.draw(st.integers(0, max(0, len(said) - 1)))
    part = said[start : start + data.draw(st.integers(1, 20))].replace("\ufffd", "")  # bytes that are no text
    texts = (
        part or "a b",
        data.draw(st.sampled_from(["</answer>", "\n\n"])),
    )
    assert found_in_tails(policy, tokens, texts) == first_stop(policy, tokens, texts)


def found_in_tails(policy: Policy, tokens: np.ndarray, texts: tuple[str, ...]) -> int | None:
    dropped = 0
    for count in range(1, len(tokens) + 1):
        stop, more = stops(tokens[dropped:count], texts, policy.codec.decode)
        dropped += more
        if stop:
            return count
    return None


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
@pytest.mark.parametrize("text", ["ü≤\n", "\n\n", "🙂ü"])
def test_a_tail_begins_at_no_half_of_a_character(kind: str, text: str) -> None:
    """Bytes alone for a long stretch: a decoder may give them all up where the first one is no whole character's."""
    policy = policy_of(kind)
    for shift in range(16):
        said = "a " * shift + "日本語🙂" * 8 + text
        tokens = np.array(policy.codec.tokenizer(said, add_special_tokens=False).input_ids)
        assert found_in_tails(policy, tokens, (text,)) == first_stop(policy, tokens, (text,)) == len(tokens)


def test_a_tail_stays_short() -> None:
    policy = policy_of("bytes")
    ids = policy.codec.tokenizer("the answer is 42 and 日本語 🙂 no more\n" * 40, add_special_tokens=False).input_ids
    tokens, dropped, longest = np.array(ids), 0, 0
    for count in range(1, len(tokens) + 1):
        longest = max(longest, count - dropped)
        stop, more = stops(tokens[dropped:count], ("</answer>",), policy.codec.decode)
        dropped += more
        assert not stop
    assert len(tokens) > 500
    assert longest < 50


def test_single_tokens_keep_their_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is decoded for them, and they stand beside texts."""
    policy = policy_of("words")
    assert policy.codec.stop_texts(("answer", "=")) == ()
    free = Sampler(policy).sample(prompts(policy, 6), 3, Sampling(max_tokens=40), at(1))
    last = next(r for r in free if len(r.response_tokens) > 8).text.split()
    pair, single = " ".join(last[5:7]), "="
    both = Sampler(policy).sample(prompts(policy, 6), 3, Sampling(max_tokens=40, stop=(pair, single)), at(1))
    stop = policy.codec.tokenizer.convert_tokens_to_ids(single)
    for one, whole in zip(both, free, strict=True):
        tokens = whole.response_tokens.tolist()
        ends = [i + 1 for i, token in enumerate(tokens) if token == stop]
        ends += [first_stop(policy, whole.response_tokens, (pair,)) or len(tokens), len(tokens)]
        assert one.response_tokens.tolist() == tokens[: min(ends)]
    monkeypatch.setattr(native, "stops", None)
    Sampler(policy).sample(prompts(policy, 3), 2, Sampling(max_tokens=40, stop=("answer", single)), at(1))


def test_a_text_at_the_limit_is_a_stop() -> None:
    policy = policy_of("bytes")
    free = sampled_freely("bytes", 0)[0]
    said = ((count, policy.codec.decode(free.response_tokens[:count])) for count in range(20, 60))
    ends = ((count, text[-n:]) for count, text in said for n in range(2, 20) if "\ufffd" not in text[-n:])
    count, whole = next((n, end) for n, end in ends if first_stop(policy, free.response_tokens, (end,)) == n)
    for limit, finish in ((count, "stop"), (count - 1, "length")):
        sampling = Sampling(max_tokens=limit, stop=(whole,))
        one = Sampler(policy, of_slots(1)).sample(prompts(policy, 1), 1, sampling, at(0))[0]
        assert (one.response_tokens.tolist(), one.finish) == (free.response_tokens[:limit].tolist(), finish)


def test_greedy_decoding_stops_too() -> None:
    policy = policy_of("bytes", 1)
    greedy = Sampling(max_tokens=60, top_k=1)
    free = Sampler(policy).sample(prompts(policy, 5), 1, greedy, at(0))
    text = next(r.text[7:10] for r in free if len(r.text) > 12 and "\ufffd" not in r.text[7:10])
    found = Sampler(policy).sample(prompts(policy, 5), 1, greedy.model_copy(update={"stop": (text,)}), at(0))
    assert any(r.finish == "stop" and text in r.text for r in found)
    for one, whole in zip(found, free, strict=True):
        assert one.response_tokens.tolist() == cut(policy, whole, (text,))[0]


def test_requests_may_have_texts_of_their_own_and_given_lengths_ignore_them() -> None:
    policy, free = policy_of("bytes"), sampled_freely("bytes", 0)
    text = policy.codec.decode(free[0].response_tokens)[4:7]
    engine = NativeEngine(slots=2)
    engine.load(Weights(policy=policy))
    seed, place = at(0)
    draw, own = place.draw(seed, "p0", 0), free[0].prompt_tokens
    stop = policy.codec.stop_tokens(())
    asked = [
        Request(own, draw, stop),
        Request(own, draw, stop, stop_texts=(text,)),
        Request(own, draw, stop, length=40, stop_texts=(text,)),
        Request(own, draw, stop, stop_texts=("never ever said",)),
    ]
    plain, cut_off, forced, never = engine.generate(asked, Sampling(max_tokens=LONG))
    at_text = first_stop(policy, free[0].response_tokens, (text,))
    assert plain.tokens.tolist() == never.tokens.tolist() == free[0].response_tokens.tolist()
    assert cut_off.tokens.tolist() == plain.tokens[:at_text].tolist()
    assert (cut_off.finish, len(forced.tokens)) == ("stop", 40)


# whole runs


def run(folder: Path, *overrides: str) -> Path:
    out = folder / "run"
    assert main(["run", str(small_recipe(folder)), *overrides, "--out", str(out)]) == 0
    return out


def test_a_run_with_a_stop_text(tmp_path: Path) -> None:
    """Training, greedy decoding and evaluation: what behind the text would have come was never sampled."""
    (tmp_path / "free").mkdir()
    options = ("method=rl", "rl.steps=4", "rl.problems_per_step=2", "rl.skip_solved=true", "rl.refill_rounds=1")
    free = run(tmp_path / "free", *options)
    out = run(tmp_path, *options, "sampling.stop=['; no', '; yes answer']")
    rollouts = TrajectoryStore(out / "trajectories", "run").read()
    assert {r.branch for r in rollouts} == {"greedy", "main"}
    for branch in ("greedy", "main"):
        own = [r for r in rollouts if r.branch == branch]
        assert any(r.finish == "stop" and r.text.endswith(("; no", "; yes answer")) for r in own)
        assert not any(stop in r.text[:-1] for r in own for stop in ("; no", "; yes answer"))
    first = [TrajectoryStore(where / "trajectories", "run").read("greedy") for where in (free, out)]
    for whole, one in zip(*first, strict=True):
        np.testing.assert_array_equal(whole.response_tokens[: len(one.response_tokens)], one.response_tokens)
    lengths = [
        (where / "evals" / "base.json").read_text().split('"mean_tokens": ')[1].split(",")[0] for where in (free, out)
    ]
    assert float(lengths[1]) < float(lengths[0])


def test_a_killed_run_with_a_stop_text_ends_with_the_same_bytes(tmp_path: Path) -> None:
    recipe, log = small_recipe(tmp_path), tmp_path / "log"
    options = ["method=rl", "rl.refill_rounds=2", "engine.slots=5", "eval.samples=1", "sampling.stop=['= 7', '; no']"]
    whole, broken = tmp_path / "whole" / "run", tmp_path / "broken" / "run"
    assert command(["run", recipe, *options, "--out", whole], log=log) == 0, log.read_text()
    for change in (24, 31):
        code = command(["run", recipe, *options, "--out", broken], log=log, watched=broken, kill_at=change)
        assert code == -signal.SIGKILL, log.read_text()
    assert command(["run", recipe, *options, "--out", broken], log=log) == 0
    assert outcome(broken) == outcome(whole)
    assert any(line["groups_used"] for line in metrics(whole, stage="explore"))
