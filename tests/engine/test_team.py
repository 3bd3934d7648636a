"""Sampling in several processes: the same rollouts, the weights of the moment, and nothing left behind."""

from __future__ import annotations

import gc
import os
import signal
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from test_native import ADDRESS, SAMPLING, assert_same, engine, prompts
from tiny_models import tiny_policy

from reasonloop.engine.protocol import Prompt
from reasonloop.engine.team import TeamEngine
from reasonloop.errors import InputError, RunError
from reasonloop.kernels import build as building
from reasonloop.kernels import ops as kernels
from reasonloop.policy.policy import Policy
from reasonloop.records import Rollout

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="weights are shared on Linux only")


@pytest.fixture(scope="module")
def policy() -> Policy:
    return tiny_policy("llama")


@pytest.fixture(scope="module")
def team() -> Iterator[TeamEngine]:
    made = TeamEngine(2)
    yield made
    made.close()


def processes(team: TeamEngine) -> list[int]:
    return [helper._process.pid for helper in team._helpers]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_rollouts_are_those_of_one_process_each_told_of_once(team: TeamEngine, policy: Policy) -> None:
    expected = engine(policy).sample(prompts(9), 4, SAMPLING, ADDRESS)
    team.load(policy)
    told: dict[int, Rollout] = {}
    found = team.sample(prompts(9), 4, SAMPLING, ADDRESS, lambda i, rollout: told.update({i: rollout}))
    assert_same(found, expected)
    assert [told[i] for i in range(len(found))] == found
    assert len(processes(team)) == 1


def test_it_gives_the_same_bits_again(team: TeamEngine, policy: Policy) -> None:
    team.load(policy)
    first, second = (team.sample(prompts(7), 3, SAMPLING, ADDRESS) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert a.response_tokens.tobytes() == b.response_tokens.tobytes()
        assert a.logprobs.tobytes() == b.logprobs.tobytes()


def test_forced_lengths_go_to_their_own_responses(team: TeamEngine, policy: Policy) -> None:
    team.load(policy)
    lengths = np.arange(20) % 11 + 1
    found = team.sample(prompts(5), 4, SAMPLING, ADDRESS, lengths=lengths)
    assert [len(rollout.response_tokens) for rollout in found] == lengths.tolist()


def test_helpers_see_what_a_learner_changes_and_the_next_policy(team: TeamEngine, policy: Policy) -> None:
    learnt = tiny_policy("llama")
    team.load(learnt)
    before = team.sample(prompts(6), 2, SAMPLING, ADDRESS)
    with torch.no_grad():
        for parameter in learnt.model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    changed = team.sample(prompts(6), 2, SAMPLING, ADDRESS)
    assert_same(changed, engine(learnt).sample(prompts(6), 2, SAMPLING, ADDRESS))
    assert any(a.response_tokens.tolist() != b.response_tokens.tolist() for a, b in zip(before, changed, strict=True))
    team.load(policy)
    assert_same(team.sample(prompts(6), 2, SAMPLING, ADDRESS), engine(policy).sample(prompts(6), 2, SAMPLING, ADDRESS))


def test_weights_that_another_engine_has_moved_are_shared_again(team: TeamEngine) -> None:
    learnt, other = tiny_policy("llama"), TeamEngine(2)
    try:
        for one in (team, other):
            one.load(learnt)
            one.sample(prompts(6), 2, SAMPLING, ADDRESS)
    finally:
        other.close()
    with torch.no_grad():
        for parameter in learnt.model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    assert_same(team.sample(prompts(6), 2, SAMPLING, ADDRESS), engine(learnt).sample(prompts(6), 2, SAMPLING, ADDRESS))


def test_helpers_compute_with_the_kernels_of_their_owner(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (kernels, building):
        monkeypatch.setattr(module, "library", lambda: None)
    without = TeamEngine(2)
    without.load(policy)
    try:
        found = without.sample(prompts(4), 2, SAMPLING, ADDRESS)
        assert_same(found, engine(policy).sample(prompts(4), 2, SAMPLING, ADDRESS))
        (environment,) = (Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") for pid in processes(without))
        assert b"REASONLOOP_KERNELS=off" in environment
    finally:
        without.close()


def test_a_shared_policy_is_saved_as_any_other(team: TeamEngine, tmp_path: Path) -> None:
    policy = tiny_policy("llama")
    team.load(policy)
    team.sample(prompts(3), 1, SAMPLING, ADDRESS)
    policy.save(tmp_path / "model")
    saved = Policy.load(tmp_path / "model")
    for ours, theirs in zip(policy.model.parameters(), saved.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_killed_helper_is_one_clear_error_and_the_next_call_works(team: TeamEngine, policy: Policy) -> None:
    team.load(policy)
    team.sample(prompts(4), 2, SAMPLING, ADDRESS)
    os.kill(processes(team)[0], signal.SIGKILL)
    with pytest.raises(RunError, match=r"sampling process ended .*SIGKILL"):
        team.sample(prompts(4), 2, SAMPLING, ADDRESS)
    assert_same(team.sample(prompts(4), 2, SAMPLING, ADDRESS), engine(policy).sample(prompts(4), 2, SAMPLING, ADDRESS))


def test_a_helpers_error_is_the_callers(team: TeamEngine, policy: Policy) -> None:
    team.load(policy)
    with pytest.raises(InputError, match="problem empty: its prompt has no tokens"):
        team.sample([prompts(1)[0], Prompt("empty", np.empty(0, np.int32))], 2, SAMPLING, ADDRESS)


def test_whatever_ends_a_call_ends_the_helpers(team: TeamEngine, policy: Policy) -> None:
    team.load(policy)
    team.sample(prompts(4), 2, SAMPLING, ADDRESS)
    helper, threads = processes(team)[0], torch.get_num_threads()

    def stop(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        team.sample(prompts(4), 2, SAMPLING, ADDRESS, on_tokens=stop)
    assert not alive(helper)
    assert torch.get_num_threads() == threads


def test_one_process_where_more_would_not_help(policy: Policy) -> None:
    team = TeamEngine(0)  # as many as torch has threads: one, in tests
    team.load(policy)
    assert len(team.sample(prompts(2), 2, SAMPLING, ADDRESS)) == 4
    several = TeamEngine(3)
    several.load(policy)
    assert len(several.sample(prompts(1), 2, SAMPLING, ADDRESS)) == 2  # one prompt is one process's
    assert processes(team) == processes(several) == []


def test_it_keeps_no_policy_alive(policy: Policy) -> None:
    """A model on a GPU must not stay there while the next stage trains another."""
    team, dropped = TeamEngine(1), tiny_policy("llama")
    team.load(dropped)
    team.sample(prompts(2), 1, SAMPLING, ADDRESS)
    watched = weakref.ref(dropped)
    del dropped
    gc.collect()
    assert watched() is None
    with pytest.raises(RunError, match="no policy"):
        team.sample(prompts(2), 1, SAMPLING, ADDRESS)
