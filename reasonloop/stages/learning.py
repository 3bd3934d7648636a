"""One step's updates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from reasonloop.config import Ppo, Rl, Sampling
from reasonloop.learner.batch import (
    effective_share,
    estimated,
    importance,
    with_proximal,
    with_reference,
)
from reasonloop.learner.estimates import Estimator
from reasonloop.learner.losses import Objective
from reasonloop.learner.protocol import Learner, Measured
from reasonloop.policy.policy import Policy
from reasonloop.records import Group
from reasonloop.stages.alarm import expect_numbers
from reasonloop.stages.sampling import Step, with_references

MEANS = ("entropy", "clip_fraction", "kl", "k1")
"""Over all updates' tokens; of everything else that updates measure, the mean over updates"""


@dataclass(frozen=True)
class StepLearner:
    """What the steps of an exploration are learned from with."""

    learner: Learner
    estimator: Estimator
    objective: Objective
    options: Rl
    """Of which `epochs`, `updates_per_step` and the KL's are read here"""
    sampling: Sampling
    seed: int
    planned: int
    """Rollouts of a step when no group is left out"""
    exact: bool = True
    """Whether the numbers of the engine that sampled are the learner's to rounding"""
    reference: Policy | None = None
    on_first: Callable[[Measured], None] | None = None
    """Called with what a step's first update measured, which nothing was learned before"""
    critic: Ppo | None = None
    """Of which the warm-up and the critic's own passes are read here"""

    def learn(self, step: Step, rate: float) -> dict[str, float]:
        """The step's updates: `rl.epochs` passes over the useful groups, each cut into `rl.updates_per_step` shares, with
        ratios to the stored behaviour log-probs, or to the learner's own where the engine isn't exact; then those of the
        critic alone. The step's measurements; kl, nats a token to the reference, is 0 without one."""
        options, sampling, reference, groups = self.options, self.sampling, self.reference, step.useful
        if self.critic is not None and step.place.step < self.critic.warmup_steps:
            rate = 0.0
        if reference is not None and options.kl_in == "loss":  # the frozen policy's, the same in every epoch
            groups = with_references(groups, reference, sampling)
        proximal = None if self.exact else _proximal(self.learner, groups, sampling)
        estimates = self.estimator.estimate(groups)
        planned = self.planned / options.updates_per_step
        results = []
        for epoch in range(max(options.epochs, self.critic.critic_epochs if self.critic is not None else 0)):
            order, of_policy = np.arange(len(groups)), epoch < options.epochs
            if epoch:
                seeds = [self.seed, step.place.step, epoch, *step.place.twin]
                order = np.random.default_rng(seeds).permutation(order)
            for part in np.array_split(order, min(options.updates_per_step, len(groups))):
                share = [groups[i] for i in part]
                own = [estimates.rollouts[i] for i in part]
                examples = estimated(share, own, self.objective, sampling.max_tokens, planned)
                if reference is not None and options.kl_in == "loss":
                    before = [logprobs for group in share for logprobs in group.reference or ()]
                    examples = with_reference(examples, before, options.kl_coef)
                if proximal is not None:
                    examples = with_proximal(examples, [logprobs for i in part for logprobs in proximal[i]])
                result = self.learner.update(examples, rate if of_policy else 0.0, self.objective)
                expect_numbers(result)
                if not of_policy:
                    continue  # a step's measurements are of updates that the policy has a part in
                results.append(result)
                if len(results) == 1 and self.exact and self.on_first is not None:
                    self.on_first(results[0])
        if self.exact:
            step.mismatch = results[0].get("apart")
        measured = {**_over_updates(results), **estimates.measured}
        if proximal is not None:
            measured |= _mismatch(groups, proximal, self.objective.importance_clip)
        if reference is not None and options.kl_in == "reward":
            measured["kl"] = _kl_to_reference(step.groups)
        return measured


def _over_updates(results: Sequence[dict[str, float]]) -> dict[str, float]:
    total = sum(result["tokens"] for result in results)
    means = {name: sum(result[name] * result["tokens"] for result in results) / total for name in MEANS}
    others = results[0].keys() - {*MEANS, "tokens", "logprob", "apart", "learning_rate"}
    means |= {name: float(np.mean([result[name] for result in results])) for name in sorted(others)}
    return means | {"learning_rate": results[-1]["learning_rate"]}


def _proximal(learner: Learner, groups: Sequence[Group], sampling: Sampling) -> list[list[np.ndarray]]:
    """By group and rollout, what the learner's own weights give before the first update."""
    pairs = [(r.prompt_tokens, r.response_tokens) for group in groups for r in group.rollouts]
    found = iter(learner.score(pairs, sampling))
    return [[next(found) for _ in group.rollouts] for group in groups]


def _mismatch(groups: Sequence[Group], proximal: Sequence[Sequence[np.ndarray]], clip: float) -> dict[str, float]:
    """How far the engine's numbers are from the learner's: the mean of the truncated importance weights over tokens, and the
    smallest effective sample size of a response, as a share of its tokens."""
    weights = []
    for group, own in zip(groups, proximal, strict=True):
        for rollout, logprobs in zip(group.rollouts, own, strict=True):
            found = importance(rollout.logprobs, logprobs, clip)
            weights.append(found if rollout.sampled is None else found[rollout.sampled])
    shares = [effective_share(one) for one in weights]
    return {"importance": float(np.concatenate(weights).mean()), "importance_ess": min(shares)}


def _kl_to_reference(groups: Sequence[Group]) -> float:
    """k1, nats a token, over all of the step's rollouts: what the reward was charged for."""
    differences = []
    for group in groups:
        for rollout, logprobs in zip(group.rollouts, group.reference or (), strict=True):
            found = rollout.logprobs.astype(np.float64) - logprobs
            differences.append(found if rollout.sampled is None else found[rollout.sampled])
    return float(np.concatenate(differences).mean())
