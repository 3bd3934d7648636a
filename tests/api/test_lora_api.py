"""Adapters from Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from run_fixtures import TASK, weak_model

import reasonloop

TASK_OPTIONS = {key: value for key, value in TASK.items() if key != "name"}


@pytest.fixture(scope="module")
def task() -> reasonloop.Task:
    return reasonloop.load_task("countdown", **TASK_OPTIONS)


def groups_of(policy: reasonloop.Policy, task: reasonloop.Task) -> list[reasonloop.Group]:
    return reasonloop.sample(policy, task, task.train[:8], group_size=4, max_tokens=14)


def beneath(policy: reasonloop.Policy) -> list[torch.Tensor]:
    return [p.detach().clone() for name, p in policy.model.named_parameters() if "lora_" not in name]


def test_a_learner_trains_an_adapter_that_is_written_alone_or_merged(task: reasonloop.Task, tmp_path: Path) -> None:
    policy = reasonloop.Policy.load(weak_model(), "cpu")
    before, groups = beneath(policy), groups_of(policy, task)
    learner = reasonloop.Learner(policy, lora_rank=4, learning_rate=1e-3)
    assert "with LoRA of rank 4" in repr(policy)
    start = policy.without_adapter()
    first = learner.rl_step(groups, kl_coef=0.1, reference=start)
    again = learner.rl_step(groups, kl_coef=0.1, reference=start)
    assert first["kl"] == pytest.approx(0, abs=1e-9)
    assert again["kl"] > 0
    later = reasonloop.Learner(policy, learning_rate=1e-3)  # goes on training it
    assert later.finetune(reasonloop.experts(groups, hard_threshold=1.0), epochs=2)
    assert policy.version > 2
    for own, parameter in zip(before, beneath(policy), strict=True):
        assert torch.equal(own, parameter)
    policy.save(tmp_path / "merged")
    policy.save_adapter(tmp_path / "adapter")
    groups = groups_of(policy, task)  # sampled with it
    pairs = [
        [r.prompt_tokens for g in groups for r in g.rollouts],
        [r.response_tokens for g in groups for r in g.rollouts],
    ]
    sampled = np.concatenate([r.logprobs for g in groups for r in g.rollouts])
    for folder in ("merged", "adapter"):
        loaded = reasonloop.Policy.load(tmp_path / folder, "cpu")
        assert loaded.adapter is None
        np.testing.assert_allclose(np.concatenate(loaded.score(*pairs, groups[0].sampling)), sampled, atol=1e-4)


def test_an_adapter_on_weights_that_were_trained_names_no_base(task: reasonloop.Task, tmp_path: Path) -> None:
    """The model that the policy was loaded from is another one now."""
    policy = reasonloop.Policy.load(weak_model(), "cpu")
    reasonloop.Learner(policy, learning_rate=1e-3).rl_step(groups_of(policy, task))
    reasonloop.Learner(policy, lora_rank=4)
    with pytest.raises(reasonloop.InputError, match="expected that to be saved first"):
        policy.save_adapter(tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_an_earlier_learner_does_not_train_what_is_frozen(task: reasonloop.Task) -> None:
    policy = reasonloop.Policy.load(weak_model(), "cpu")
    groups = groups_of(policy, task)
    earlier = reasonloop.Learner(policy, learning_rate=1e-3)
    earlier.rl_step(groups)
    before = beneath(policy)
    reasonloop.Learner(policy, lora_rank=2)
    assert earlier.rl_step(groups)["grad_norm"] > 0
    assert all(torch.equal(own, parameter) for own, parameter in zip(before, beneath(policy), strict=True))
    with pytest.raises(reasonloop.InputError, match="has an adapter already"):
        reasonloop.Learner(policy, lora_rank=4)
    with pytest.raises(reasonloop.InputError, match="unknown key 'lora_rnk'; did you mean 'lora_rank'"):
        reasonloop.Learner(policy, lora_rnk=4)  # type: ignore[call-arg]
