"""One step's rollouts: sampled, judged, rewarded, and refilled where a group has no gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reasonloop.engine.judged import sample_judged
from reasonloop.engine.protocol import Address, Prompt
from reasonloop.learner.batch import useful_groups
from reasonloop.learner.losses import Objective
from reasonloop.policy.policy import Policy
from reasonloop.records import Problem, Rollout
from reasonloop.rewards.exploration import Explorer, alpha_at
from reasonloop.rewards.outcome import outcome_reward, with_kl_penalty
from reasonloop.run.folder import Run
from reasonloop.stages.common import shuffled


@dataclass
class StepRollouts:
    """What a step has sampled."""

    groups: list[list[Rollout]] = field(default_factory=list)
    reference: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    """(problem id, sample) -> log-probs of the policy that RL started from, float32 [T], where the reward needs them"""
    explored: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    """For each batch and refill: its groups, and what its exploration rewards measured"""
    cut: bool = False
    """Whether the budget left groups out"""

    @property
    def rollouts(self) -> list[Rollout]:
        return [rollout for group in self.groups for rollout in group]

    def measured(self) -> dict[str, float]:
        """The exploration's measurements over the step: sums of counts, means over groups of the rest."""
        totals: dict[str, list[tuple[int, float]]] = {}
        for size, metrics in self.explored:
            for name, value in metrics.items():
                totals.setdefault(name, []).append((size, value))
        return {
            name: sum(value for _, value in rows)
            if name == "left_out_groups" or name.startswith("judge_failures")
            else sum(size * value for size, value in rows) / sum(size for size, _ in rows)
            for name, rows in totals.items()
        }


class StepSampler:
    """Samples an exploration's steps from `problems`, in shuffled passes over them."""

    def __init__(
        self,
        run: Run,
        policy: Policy,
        objective: Objective,
        problems: Sequence[Problem],
        reference: Policy | None,
        explorer: Explorer | None,
    ) -> None:
        self.run, self.objective, self.problems = run, objective, problems
        self.reference, self.explorer = reference, explorer
        self.prompts = [Prompt(problem.id, policy.encode_prompt(problem)) for problem in problems]
        self.policy = policy

    def step(
        self, address: Address, cursor: dict[str, Any], budget: int, planned: int
    ) -> tuple[StepRollouts, dict[str, Any]]:
        """A batch of groups, and refills for those without a gradient (dynamic sampling); the cursor behind them.

        `budget`: the exploration's rollouts; `planned`: its steps.
        """
        options, out = self.run.recipe.rl, StepRollouts()
        alpha = alpha_at(self.run.recipe.exploration, cursor["rollouts"] / options.rollouts_per_step, planned)
        taken: set[int] = set()
        for _ in range(1 + options.refill_rounds):
            wanted = options.problems_per_step - len(useful_groups(out.groups, self.objective))
            affordable = math.ceil((budget - cursor["rollouts"]) / options.group_size)
            out.cut = out.cut or wanted > affordable
            picked: list[int] = []
            position = cursor["groups"]
            while len(picked) < min(wanted, affordable) and len(taken) < len(self.problems):
                index = shuffled(position, len(self.problems), self.run.recipe.seed, address.iteration)
                position += 1
                if index not in taken:  # a problem is in a step once, at the seam of two passes too
                    taken.add(index)
                    picked.append(index)
            if not picked:
                break
            cursor = {**cursor, "groups": position, "rollouts": cursor["rollouts"] + len(picked) * options.group_size}
            self._sample(picked, address, alpha, out)
        return out, cursor

    def _sample(self, picked: Sequence[int], address: Address, alpha: float, out: StepRollouts) -> None:
        recipe = self.run.recipe
        options, size = recipe.rl, recipe.rl.group_size
        problems, prompts = [self.problems[i] for i in picked], [self.prompts[i] for i in picked]
        engine, verifier = self.run.engine, self.run.verifier
        engine.load(self.policy)
        fresh = sample_judged(engine, verifier, problems, prompts, size, recipe.sampling, address)
        fresh = [outcome_reward(r, recipe.sampling.max_tokens, options.overlong_buffer) for r in fresh]
        groups = [fresh[i : i + size] for i in range(0, len(fresh), size)]
        if self.explorer is not None and alpha < 1:
            groups, measured = self.explorer.reward(problems, groups, alpha)
            out.explored.append((len(picked), measured))
        if self.reference is not None and options.kl_in == "reward":
            fresh = [rollout for group in groups for rollout in group]
            logprobs = score(self.reference, fresh, self.run)
            out.reference |= {(r.problem_id, r.sample): own for r, own in zip(fresh, logprobs, strict=True)}
            fresh = with_kl_penalty(fresh, logprobs, options.kl_coef)
            groups = [fresh[i : i + size] for i in range(0, len(fresh), size)]
        out.groups += groups


def score(policy: Policy, rollouts: Sequence[Rollout], run: Run) -> list[np.ndarray]:
    """The policy's log-probs of the rollouts' responses, float32 [T] each."""
    return policy.score([r.prompt_tokens for r in rollouts], [r.response_tokens for r in rollouts], run.recipe.sampling)
