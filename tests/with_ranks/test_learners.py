"""Learners of two and of three processes against one that is alone: losses, gradients, steps, the state to go on from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import all_well, ranks
from tiny_models import pairs, tiny_policy

from reasonloop.config import LoraSettings, Optimizer, Ppo, Sampling
from reasonloop.learner.batch import Example
from reasonloop.learner.critic import Critic
from reasonloop.learner.dealt import DealtLearner, dealt
from reasonloop.learner.local import SUMS, LocalLearner, measured
from reasonloop.learner.losses import OBJECTIVES
from reasonloop.policy.policy import Policy

OPTIONS = Optimizer(microbatch_tokens=90, grad_clip=0.5, weight_decay=0.1)
SAMPLING = Sampling(temperature=0.9, top_p=0.9)
CASES = ("llama", "llama_tied", "gemma2_softcap", "gpt2", "recomputed", "half", "lora", "ppo")
GOING_ON = ("llama_tied", "half", "lora", "ppo")


def examples(seed: int, *, critic: bool) -> list[Example]:
    rng = np.random.default_rng(seed)
    return [
        Example(
            prompt, response, policy_weight=np.full(len(response), 0.02), kl_weight=np.full(len(response), 0.001),
            ce_weight=np.full(len(response), 0.01),
            advantage=np.full(len(response), rng.normal()),
            behaviour=-rng.exponential(3.0, len(response)).astype(np.float32),
            reference=-rng.exponential(3.0, len(response)).astype(np.float32),
            sampled=rng.random(len(response)) < 0.9 if seed % 2 else None,
            **({"value_weight": np.full(len(response), 0.02), "returns": rng.normal(size=len(response)),
                "old_values": rng.normal(size=len(response))} if critic else {}),
        )
        for prompt, response in zip(*pairs(seed, 3, 3, 30), strict=True)
    ]  # fmt: skip


def policy_of(case: str, folder: Path | None = None) -> Policy:
    if folder is not None and case != "lora":
        return Policy.load(folder, dtype="bfloat16" if case == "half" else "float32")
    policy = tiny_policy({"recomputed": "qwen3", "half": "llama_tied", "lora": "llama", "ppo": "llama"}.get(case, case))
    if case == "half":
        policy.compute_in("bfloat16")
    if case == "lora":
        policy.adapt(LoraSettings(4), "here", "somewhere")
        if folder is not None:
            from reasonloop.policy import adapters

            adapters.load(policy.model, folder / "adapter")
    return policy


def learner_of(case: str, kind: type[LocalLearner], policy: Policy, **options: Any) -> Any:
    critic = Critic(policy, Ppo(), OPTIONS) if case == "ppo" else None
    return kind(policy, OPTIONS, SAMPLING, case == "recomputed", critic, **options)


def update(learner: LocalLearner, case: str, seed: int, cut_for: int = 0) -> dict[str, float]:
    """As `RanksLearner.update` has it, without a channel. `cut_for`: a process that is alone has the streams of so many."""
    batch, objective = examples(seed, critic=case == "ppo"), OBJECTIVES["gspo" if seed == 2 else "dapo"]
    rate = 0.0 if case == "ppo" and seed == 0 else 1e-2
    if cut_for:
        streams = [stream for own in dealt(batch, OPTIONS.microbatch_tokens, cut_for) for stream in own if stream]
        return measured(learner.learn([streams], rate, objective), batch)
    if not isinstance(learner, DealtLearner):
        return learner.update(batch, rate, objective)
    streams = dealt(batch, OPTIONS.microbatch_tokens, learner.world)
    found = learner.learn([streams[learner.rank]], rate, objective, case == "ppo")
    sums = torch.tensor([found[name] for name in SUMS], dtype=torch.float64)
    torch.distributed.all_reduce(sums, group=learner.group)
    return measured(found | dict(zip(SUMS, sums.tolist(), strict=True)), batch)


def updates(learner: LocalLearner, case: str, cut_for: int = 0) -> tuple[list[dict[str, float]], torch.Tensor]:
    """Three of them, and the first one's clipped gradients: AdamW's first moments have a tenth of them (of the second where
    a critic's warm-up has frozen the first)."""
    told = [update(learner, case, 0, cut_for)]
    if case == "ppo":
        told.append(update(learner, case, 1))
    gradient = moments(learner, ("exp_avg",))
    return [*told, *(update(learner, case, seed, cut_for) for seed in range(len(told), 3))], gradient


def weights(learner: LocalLearner) -> torch.Tensor:
    """What the optimizer steps, whole and flat, and a critic's."""
    both = [*learner.parameters, *(learner.critic.parameters if learner.critic else [])]
    return torch.cat([(p.full_tensor() if hasattr(p, "full_tensor") else p).detach().flatten() for p in both])


def moments(learner: LocalLearner, names: Sequence[str] = ("exp_avg", "exp_avg_sq", "step")) -> torch.Tensor:
    found = [learner.optimizer.state[p][name] for p in learner.parameters for name in names]
    return torch.cat([(m.full_tensor() if hasattr(m, "full_tensor") else m).flatten() for m in found])


def work(folder: str) -> None:
    """Of each process; what came out is in the folder."""
    import torch.distributed as dist

    from reasonloop.learner.fsdp import FsdpLearner

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    groups = {2: dist.new_group([0, 1]), 3: dist.group.WORLD}
    rank, found = dist.get_rank(), dict[str, Any]()
    for case in CASES:
        kind: type[Any] = DealtLearner if case == "lora" else FsdpLearner
        for world, group in groups.items():
            if rank >= world:
                continue
            learner = learner_of(case, kind, policy_of(case), group=group)
            told, gradient = updates(learner, case)
            learner.gather()
            found[f"{case} {world}"] = told, weights(learner), learner.policy.score(*pairs(9), Sampling()), gradient
            if case not in GOING_ON:
                continue
            place = Path(folder, f"{case}-{world}")
            place.mkdir(exist_ok=True)
            dist.barrier(group)
            learner.save(place, whole=case != "lora")
            dist.barrier(group)
            found[f"{case} {world} state"] = moments(learner), learner.updates
            found[f"{case} {world} on"] = update(learner, case, 4), weights(learner)
        dist.barrier()
        for before, world in ((3, 2), (2, 3), (1, 3)):  # at another number of processes
            if rank >= world or case not in GOING_ON:
                continue
            place = Path(folder, f"{case}-{before}")
            learner = learner_of(case, kind, policy_of(case, place), group=groups[world])
            learner.load(place)
            at = moments(learner), learner.updates, weights(learner)
            found[f"{case} {before} {world}"] = *at, update(learner, case, 4), weights(learner)
    skipping(found, FsdpLearner, groups[3])
    if rank == 0:
        torch.save(found, Path(folder, "found"))


def skipping(found: dict[str, Any], kind: type[Any], group: Any) -> None:
    """One process has an infinite gradient: none takes the step."""
    learner = learner_of("llama", kind, policy_of("llama"), group=group)
    streams = dealt(examples(0, critic=False), OPTIONS.microbatch_tokens, learner.world)[learner.rank]
    before = weights(learner)
    if learner.rank == 1:
        streams = [[replace(one, ce_weight=np.full(len(one.response), np.inf)) for one in own] for own in streams]
    learner.learn([streams], 1e-2, OBJECTIVES["dapo"])
    found["skipped"] = learner.skipped, learner.updates, torch.equal(before, weights(learner))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("learners")
    torch.set_num_threads(1)
    alone: dict[str, Any] = {}
    for case in CASES:
        learner = learner_of(case, LocalLearner, policy_of(case))
        told, gradient = updates(learner, case)
        alone[f"{case} 1"] = told, weights(learner), learner.policy.score(*pairs(9), Sampling()), gradient
        (folder / f"{case}-1").mkdir()
        learner.save(folder / f"{case}-1", whole=case != "lora")
        alone[f"{case} 1 state"] = moments(learner), learner.updates
        alone[f"{case} 1 on"] = update(learner, case, 4), weights(learner)
    for world in (2, 3):  # in half precision rounding depends on the cut
        learner = learner_of("half", LocalLearner, policy_of("half"))
        told, gradient = updates(learner, "half", world)
        alone[f"half cut {world}"] = told, weights(learner), learner.policy.score(*pairs(9), Sampling()), gradient
    log = folder / "log"
    all_well(ranks(3, work, str(folder), log=log), log, 280)
    return torch.load(folder / "found", weights_only=False) | alone | {"folder": folder}


def near(one: torch.Tensor, other: torch.Tensor, by: float) -> None:
    """In all: AdamW makes whole steps of gradients that are nothing but rounding (the bias of GPT-2's keys, say)."""
    assert float((one - other).norm() / other.norm()) < by


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_losses_gradients_and_steps_are_those_of_one_process(found: dict[str, Any], case: str, world: int) -> None:
    told, stepped, scored, gradient = found[f"{case} {world}"]
    alone, alones, alone_scored, alone_gradient = found[f"half cut {world}" if case == "half" else f"{case} 1"]
    assert stepped.dtype == gradient.dtype == torch.float32
    assert told[0] == pytest.approx(alone[0], rel=2e-6, abs=1e-6)
    near(gradient, alone_gradient, 1e-6)
    for ours, theirs in zip(told, alone, strict=True):
        assert ours == pytest.approx(theirs, rel=2e-5, abs=1e-5)
    near(stepped, alones, 2e-4)
    rounding = 1e-2 if case == "half" else 1e-3
    near(torch.from_numpy(np.concatenate(scored)), torch.from_numpy(np.concatenate(alone_scored)), rounding)


@pytest.mark.parametrize(("before", "world"), [(3, 2), (2, 3), (1, 3)])
@pytest.mark.parametrize("case", GOING_ON)
def test_it_goes_on_with_another_number_of_processes(found: dict[str, Any], case: str, before: int, world: int) -> None:
    moved, updates, stands, told, stepped = found[f"{case} {before} {world}"]
    state, counted = found[f"{case} {before} state"]
    assert updates == counted == 3
    assert torch.equal(moved, state)
    assert torch.equal(stands, found[f"{case} {before}"][1])
    unbroken, unbrokens = found[f"{case} {before} on"]
    if case != "half":
        assert told == pytest.approx(unbroken, rel=2e-5, abs=1e-6)
        near(stepped, unbrokens, 1e-4)


@pytest.mark.parametrize("before", [2, 3])
@pytest.mark.parametrize("case", GOING_ON)
def test_a_process_that_is_alone_goes_on(found: dict[str, Any], case: str, before: int) -> None:
    place = found["folder"] / f"{case}-{before}"
    learner = learner_of(case, LocalLearner, policy_of(case, place))
    learner.load(place)
    state, counted = found[f"{case} {before} state"]
    assert learner.updates == counted
    assert torch.equal(moments(learner), state)
    assert torch.equal(weights(learner), found[f"{case} {before}"][1])
    if case != "half":
        told, stepped = found[f"{case} {before} on"]
        assert update(learner, case, 4) == pytest.approx(told, rel=2e-5, abs=1e-6)
        near(weights(learner), stepped, 1e-4)


def test_none_takes_a_step_that_one_of_them_can_t(found: dict[str, Any]) -> None:
    assert found["skipped"] == (1, 1, True)


def test_streams_are_dealt_equally() -> None:
    for seed in range(20):
        batch = examples(seed, critic=False)
        for world in (1, 2, 3, 7, 12):
            shares = dealt(batch, 90, world)
            assert len(shares) == world
            assert len({len(streams) for streams in shares}) == 1
            there = sorted(id(one) for streams in shares for stream in streams for one in stream)
            assert there == sorted(map(id, batch))
