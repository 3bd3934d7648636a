"""One step's updates: group advantages, or PPO's critic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from reasonloop.config import Rl
from reasonloop.learner.batch import (
    Example,
    policy_gradient,
    reinforced,
    reward_without_kl,
    with_reference,
    with_values,
)
from reasonloop.learner.critic import explained_variance
from reasonloop.learner.gae import gae, token_rewards, whiten
from reasonloop.learner.learner import Learner
from reasonloop.learner.losses import OBJECTIVES, Objective
from reasonloop.policy.policy import Policy
from reasonloop.records import Rollout
from reasonloop.run.folder import Run
from reasonloop.stages.sampling import StepRollouts, score


def objective_of(options: Rl) -> Objective:
    """The named objective with the recipe's own parts, where it sets some."""
    named = OBJECTIVES[options.objective]
    return replace(
        named,
        clip_low=options.clip_low or named.clip_low,  # a clip of 0 is refused, so that unset is the only other case
        clip_high=options.clip_high or named.clip_high,
        advantage=options.advantage or named.advantage,
        pass_k=options.pass_k,
    )


def learn_step(
    run: Run,
    learner: Learner,
    groups: Sequence[Sequence[Rollout]],
    objective: Objective,
    rate: float,
    step: int,
    sampled: StepRollouts,
    reference: Policy | None,
) -> dict[str, float]:
    """The step's updates: `rl.epochs` passes over the groups, each cut into `rl.updates_per_step` shares, with ratios to
    the stored behaviour log-probs. The step's measurements, means over all updates' tokens; kl, nats a token to the
    reference, is 0 without one."""
    options, results = run.recipe.rl, []
    groups = [list(group) for group in groups]
    before = None  # the frozen policy's log-probs of the KL term, the same in every epoch
    if reference is not None and options.kl_in == "loss":
        flat = [rollout for group in groups for rollout in group]
        before = dict(zip(map(_key, flat), score(reference, flat, run), strict=True))
    critic = _Estimates(run, learner, groups, sampled) if learner.critic is not None else None
    planned, frozen = options.rollouts_per_step / options.updates_per_step, False
    for epoch in range(options.epochs):
        order = np.arange(len(groups))
        if epoch:
            order = np.random.default_rng([run.recipe.seed, step, epoch]).permutation(order)
        for part in np.array_split(order, min(options.updates_per_step, len(groups))):
            share = [groups[i] for i in part]
            if critic is not None:
                examples = critic.examples(share, objective, planned)
                frozen = learner.updates < run.recipe.ppo.warmup_steps
            else:
                examples = reinforced(share, objective, run.recipe.sampling.max_tokens, planned)
            if before is not None:
                flat = [rollout for group in share for rollout in group]
                examples = with_reference(examples, [before[_key(r)] for r in flat], options.kl_coef)
            critic_rate = run.recipe.ppo.learning_rate if critic is not None else None
            results.append(learner.update(examples, rate, objective, critic_rate, frozen))
    total = sum(result["tokens"] for result in results)
    means = {
        name: sum(result[name] * result["tokens"] for result in results) / total
        for name in ("entropy", "clip_fraction", "kl", "k1")
    }
    if reference is not None and options.kl_in == "reward":
        means["kl"] = _kl_to_reference(sampled)
    means["grad_norm"] = float(np.mean([result["grad_norm"] for result in results]))
    if critic is not None:
        means |= {
            name: float(np.mean([result[name] for result in results])) for name in ("value_loss", "critic_grad_norm")
        }
        means["explained_variance"] = critic.explained_variance
    return means | {"learning_rate": 0.0 if frozen else rate}


def _kl_to_reference(sampled: StepRollouts) -> float:
    """k1, nats a token, over all of the step's rollouts: what the reward was charged for."""
    flat = [rollout for group in sampled.groups for rollout in group]
    differences = [r.logprobs.astype(np.float64) - sampled.reference[_key(r)] for r in flat]
    return float(np.concatenate(differences).mean())


class _Estimates:
    """GAE over a step's rollouts, by the critic as it was before the step's updates."""

    def __init__(self, run: Run, learner: Learner, groups: Sequence[Sequence[Rollout]], sampled: StepRollouts) -> None:
        assert learner.critic is not None
        self.options, self.max_tokens = run.recipe.ppo, run.recipe.sampling.max_tokens
        rollouts = [rollout for group in groups for rollout in group]
        prompts, responses = [r.prompt_tokens for r in rollouts], [r.response_tokens for r in rollouts]
        values = learner.critic.score(prompts, responses, run.recipe.optimizer.microbatch_tokens)
        coefficient = run.recipe.rl.kl_coef if run.recipe.rl.kl_in == "reward" else 0.0
        pairs = []
        for rollout, value in zip(rollouts, values, strict=True):
            reference = sampled.reference.get(_key(rollout))
            rewards = token_rewards(reward_without_kl(rollout), rollout.logprobs, reference, coefficient)
            pairs.append(gae(rewards, value, self.options.gamma, self.options.gae_lambda))
        advantages, returns = [a for a, _ in pairs], [r for _, r in pairs]
        self.explained_variance = explained_variance(values, returns)
        if self.options.whiten:
            advantages = whiten(advantages)
        self._of = {
            _key(r): row for r, row in zip(rollouts, zip(advantages, returns, values, strict=True), strict=True)
        }

    def examples(self, share: Sequence[Sequence[Rollout]], objective: Objective, planned: float) -> list[Example]:
        rollouts = [rollout for group in share for rollout in group]
        advantages, returns, values = zip(*(self._of[_key(rollout)] for rollout in rollouts), strict=True)
        examples = policy_gradient(rollouts, advantages, objective, self.max_tokens, planned)
        return with_values(examples, returns, values, self.options.value_coef)


def _key(rollout: Rollout) -> tuple[str, int]:
    return rollout.problem_id, rollout.sample
