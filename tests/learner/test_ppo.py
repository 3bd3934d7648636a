"""PPO: the critic's values, and whole updates, against a plain float64 reference."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_update import UNCLIPPED, off_policy, sampled_groups, with_tools
from tiny_models import tiny_policy

from reasonloop.config import Optimizer, Ppo, Sampling
from reasonloop.learner.batch import Example, policy_gradient, useful_groups, with_values
from reasonloop.learner.critic import Critic, explained_variance
from reasonloop.learner.gae import gae, token_rewards, whiten
from reasonloop.learner.local import LocalLearner
from reasonloop.learner.losses import OBJECTIVES
from reasonloop.policy.policy import Policy

SAMPLING = Sampling(max_tokens=16)
PPO = OBJECTIVES["ppo"]


def make(limit: int = 10_000, **options: Any) -> tuple[LocalLearner, Critic]:
    """A learner with a critic whose head is random, so that its values differ from token to token."""
    policy = tiny_policy("llama")
    optimizer = Optimizer(microbatch_tokens=limit, grad_clip=UNCLIPPED)
    own = Critic(policy, Ppo(**options), optimizer)
    with torch.no_grad():
        own.head.weight.copy_(torch.randn(own.head.weight.shape, generator=torch.Generator().manual_seed(3)) * 0.3)
        own.head.bias.fill_(0.1)
    return LocalLearner(policy, optimizer, SAMPLING, critic=own), own


def batch(critic: Critic, policy: Policy) -> list[Example]:
    rollouts = [rollout for group in off_policy(sampled_groups(policy), 0.2) for rollout in group.rollouts]
    values = critic.score([r.prompt_tokens for r in rollouts], [r.response_tokens for r in rollouts], 60)
    pairs = [gae(token_rewards(r.reward, r.logprobs), v, 0.95) for r, v in zip(rollouts, values, strict=True)]
    old = [v + 0.3 * (-1) ** i for i, v in enumerate(values)]  # so that value clipping is at work for some
    examples = policy_gradient(rollouts, whiten([a for a, _ in pairs]), PPO, SAMPLING.max_tokens)
    return with_values(examples, [r for _, r in pairs], old)


def states(model: Any, example: Example) -> torch.Tensor:
    """Hidden states before each response token by the model's own forward pass, alone, float64: [T, D]."""
    ids = np.concatenate([example.prompt, example.response[:-1]]).astype(np.int64)
    hidden = model.base_model(torch.from_numpy(ids)[None], use_cache=False).last_hidden_state[0]
    return hidden[len(example.prompt) - 1 :]


def reference_loss(model: Any, trunk: Any, head: Any, examples: list[Example], clip: float) -> Any:
    """The PPO loss written out: mean over all tokens of the clipped surrogate and of the clipped value error."""
    tokens, policy_sum, value_sum = 0, 0.0, 0.0
    for example in examples:
        logits = states(model, example) @ model.get_output_embeddings().weight.T
        chosen = torch.from_numpy(example.response.astype(np.int64))
        logprobs = torch.log_softmax(logits, -1).gather(1, chosen[:, None])[:, 0]
        advantage = torch.from_numpy(np.asarray(example.advantage, dtype=np.float64))
        ratio = torch.exp(logprobs - torch.from_numpy(example.behaviour.astype(np.float64)))
        policy_sum = policy_sum - torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).sum()
        value = head(states(trunk, example))[:, 0]
        old, target = (torch.from_numpy(np.asarray(a, dtype=np.float64)) for a in (example.old_values, example.returns))
        bounded = old + (value - old).clamp(-clip, clip)
        value_sum = value_sum + 0.5 * torch.maximum((value - target) ** 2, (bounded - target) ** 2).sum()
        tokens += len(example.response)
    return (policy_sum + value_sum) / tokens


def spied_gradients(learner: LocalLearner, critic: Critic, examples: list[Example]) -> dict[str, torch.Tensor]:
    """All gradients of one update that moves nothing."""
    kept: dict[str, torch.Tensor] = {}

    def spy(prefix: str, module: Any) -> Any:
        return lambda: kept.update(
            {prefix + n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}
        )

    learner.optimizer.step = spy("policy.", learner.policy.model)  # type: ignore[method-assign]
    trunk, head = spy("trunk.", critic.trunk.model), spy("head.", critic.head)
    critic.optimizer.step = lambda: (head(), trunk())  # type: ignore[method-assign]
    learner.update(examples, 1.0, PPO)
    return kept


def test_loss_and_gradients_equal_a_plain_float64_reference() -> None:
    learner, critic = make()
    examples = batch(critic, learner.policy)
    model, head = copy.deepcopy(learner.policy.model).double(), copy.deepcopy(critic.head).double()
    model.set_attn_implementation("eager")
    trunk = copy.deepcopy(model)
    expected = reference_loss(model, trunk, head, examples, 0.2)
    expected.backward()
    found = spied_gradients(learner, critic, examples)
    reference = {f"policy.{n}": p.grad for n, p in model.named_parameters()}
    reference |= {f"head.{n}": p.grad for n, p in head.named_parameters()}
    reference |= {f"trunk.{n}": p.grad for n, p in trunk.named_parameters() if p.grad is not None}
    assert found.keys() == reference.keys()
    for name, gradient in reference.items():
        np.testing.assert_allclose(found[name].double(), gradient, atol=1e-5, rtol=1e-4, err_msg=name)
    learner, critic = make()
    measured = learner.update(examples, 0.0, PPO)
    assert measured["loss"] == pytest.approx(float(expected.detach()), abs=1e-5)


def test_values_are_those_of_the_state_before_each_token_however_they_are_packed() -> None:
    learner, critic = make()
    groups = sampled_groups(learner.policy)
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    prompts, responses = [r.prompt_tokens for r in rollouts], [r.response_tokens for r in rollouts]
    packed = critic.score(prompts, responses, 10_000)
    for limit in (1, 40):
        for one, other in zip(critic.score(prompts, responses, limit), packed, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
    head, model = copy.deepcopy(critic.head).double(), copy.deepcopy(critic.trunk.model).double()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        for rollout, values in zip(rollouts, packed, strict=True):
            example = Example(rollout.prompt_tokens, rollout.response_tokens)
            np.testing.assert_allclose(values, head(states(model, example))[:, 0], atol=1e-5)


def test_an_update_does_not_depend_on_micro_batches() -> None:
    learner, critic = make()
    examples = batch(critic, learner.policy)
    whole = spied_gradients(learner, critic, examples)
    learner, critic = make(limit=30)
    parts = spied_gradients(learner, critic, examples[::-1])
    for name, gradient in whole.items():
        np.testing.assert_allclose(parts[name], gradient, atol=1e-5, rtol=1e-3, err_msg=name)


def weights(module: torch.nn.Module) -> bytes:
    return b"".join(value.numpy().tobytes() for value in module.state_dict().values())


def test_a_frozen_policy_stays_while_its_critic_learns() -> None:
    learner, critic = make(learning_rate=3e-3)
    examples = batch(critic, learner.policy)
    before, losses = weights(learner.policy.model), []
    prompts, responses = [e.prompt for e in examples], [e.response for e in examples]
    for _ in range(30):
        told = critic.score(prompts, responses, 60)
        examples = [replace(example, old_values=value) for example, value in zip(examples, told, strict=True)]
        losses.append(learner.update(examples, 0.0, PPO)["value_loss"])
    assert weights(learner.policy.model) == before
    assert losses[-1] < 0.7 * losses[0]
    learner.update(examples, 1e-3, PPO)
    assert weights(learner.policy.model) != before


def test_a_copied_critic_is_a_model_of_its_own() -> None:
    learner, critic = make(learning_rate=1e-2)
    before = weights(learner.policy.model)
    learner.update(batch(critic, learner.policy), 0.0, PPO)
    assert weights(critic.trunk.model) != before == weights(learner.policy.model)


def test_a_loaded_critic_continues_with_the_same_bytes(tmp_path: Path) -> None:
    straight, critic = make(learning_rate=1e-3)
    examples = batch(critic, straight.policy)
    straight.update(examples, 1e-3, PPO)
    straight.save(tmp_path)
    policy = Policy.load(tmp_path)
    options = Optimizer(microbatch_tokens=10_000, grad_clip=UNCLIPPED)
    ppo = Ppo(learning_rate=1e-3)
    again = LocalLearner(policy, options, SAMPLING, critic=Critic(policy, ppo, options))
    again.load(tmp_path)
    for learner in (straight, again):
        learner.update(examples, 1e-3, PPO)
    assert again.critic is not None
    assert weights(again.policy.model) == weights(straight.policy.model)
    assert weights(again.critic.head) == weights(critic.head)
    assert weights(again.critic.trunk.model.base_model) == weights(critic.trunk.model.base_model)


def test_with_a_critic_no_group_is_dropped() -> None:
    groups = sampled_groups(tiny_policy("llama"))
    for rollout in groups[0].rollouts:
        object.__setattr__(rollout, "reward", 1.0)
    assert len(useful_groups(groups)) == 2
    assert useful_groups(groups, PPO) == groups


def test_explained_variance() -> None:
    returns = [np.array([0.0, 1.0]), np.array([1.0])]
    assert explained_variance(returns, returns) == 1.0
    assert explained_variance([np.zeros(2), np.zeros(1)], returns) == 0.0


def test_estimates_pass_over_tokens_that_the_policy_did_not_sample() -> None:
    """Advantages and returns of the sampled tokens are those of the sampled tokens alone, whatever stands between them."""
    learner, critic = make(gae_lambda=0.7, value_lambda=0.9)
    groups = with_tools(sampled_groups(learner.policy), 0.4)
    found = critic.estimate(groups)
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    expected, told, outcomes = [], [], []
    for rollout in rollouts:
        (values,) = critic.score([rollout.prompt_tokens], [rollout.response_tokens], 10_000)
        rewards = token_rewards(rollout.reward, rollout.logprobs[rollout.sampled])
        own = values[rollout.sampled]
        expected.append((gae(rewards, own, 0.7)[0], gae(rewards, own, 0.9)[1]))
        told.append(own)
        outcomes.append(np.full(len(own), rollout.reward))
    whitened = whiten([advantages for advantages, _ in expected])
    estimates = [estimate for own in found.rollouts for estimate in own]
    for rollout, estimate, advantages, (_, returns) in zip(rollouts, estimates, whitened, expected, strict=True):
        np.testing.assert_allclose(estimate.advantage[rollout.sampled], advantages, atol=1e-5)
        np.testing.assert_allclose(estimate.returns[rollout.sampled], returns, atol=1e-5)
        assert (estimate.advantage[~rollout.sampled] == 0).all()
    # whatever the lambdas, the critic is held to what came of the responses, and not to what it said itself
    assert found.measured == {"explained_variance": pytest.approx(explained_variance(told, outcomes), abs=1e-5)}
