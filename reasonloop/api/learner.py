"""`reasonloop.Learner`: RL steps and fine-tuning of a policy, one call each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Unpack

import numpy as np

from reasonloop.api.options import (
    FinetuneKeywords,
    FinetuneOptions,
    LearnerKeywords,
    LearnerOptions,
    StepKeywords,
    StepOptions,
)
from reasonloop.config import LoraSettings, Optimizer, Ppo, Rl, Sampling, Sft, validated
from reasonloop.errors import InputError
from reasonloop.learner.batch import useful_groups
from reasonloop.learner.critic import Critic
from reasonloop.learner.estimates import Estimator, GroupAdvantages
from reasonloop.learner.local import LocalLearner
from reasonloop.learner.losses import OBJECTIVES, Objective, Surrogate, objective_of
from reasonloop.learner.protocol import Measured
from reasonloop.policy.policy import Policy, expect_policy
from reasonloop.records import Group, Place, Problem, Rollout
from reasonloop.runs.stages import Examples
from reasonloop.stages.exploration import rollout_metrics
from reasonloop.stages.finetune import Passes, batch_of
from reasonloop.stages.learning import StepLearner
from reasonloop.stages.sampling import Step, score
from reasonloop.store.experts import Experts

objectives: Mapping[str, Objective] = MappingProxyType(OBJECTIVES)
"""The RL objectives by name, each an `Objective`, taken apart: dapo, grpo, dr_grpo, rloo, gspo, cispo, ppo."""

CHECKED = 16
"""Rollouts of a step, at most, whose stored log-probs are compared with the learner's"""
AGREE = {"float32": 1e-3, "bfloat16": 0.1}
"""Nats a token, on average, by which they may differ: rounding"""

Pairs = Experts | Iterable[Rollout] | Iterable[tuple[Problem | str, str]]


class Learner:
    """Trains a policy in place, with AdamW.

        learner = reasonloop.Learner(policy, learning_rate=3e-4)
        measured = learner.rl_step(groups, objective="dapo")
        learner.finetune(reasonloop.experts(groups), epochs=2)

    `options`: `learning_rate` (1e-4), and those of a recipe's `[optimizer]`: `betas` ((0.9, 0.95)), `weight_decay` (0),
    `grad_clip` (1), `microbatch_tokens` (8192); `gradient_checkpointing` (False). The moments last over `rl_step` and
    `sft_step`; where something else has changed the policy's weights in between they begin anew.

    `lora_rank=8` trains a LoRA adapter beside the weights instead (`lora_alpha` 32, `lora_targets` "all-linear"): the policy
    has it from now on, and a later learner of it goes on training it. `policy.save` writes it merged, `policy.save_adapter`
    alone. As a KL's `reference`, `policy.without_adapter()` is the policy as it was.
    """

    def __init__(self, policy: Policy, **options: Unpack[LearnerKeywords]) -> None:
        expect_policy("Learner", policy)
        chosen = validated(LearnerOptions, dict(options), "Learner")
        self.policy = policy
        """What is trained"""
        if chosen.lora_rank:
            settings = LoraSettings(chosen.lora_rank, chosen.lora_alpha, chosen.lora_targets)
            if policy.adapter is None or policy.adapter.settings != settings:
                policy.adapt(settings)
        self._adapter = policy.adapter
        self._learning_rate = chosen.learning_rate
        self.skipped = 0
        """Updates that were left out because their gradient was not finite"""
        self._optimizer = Optimizer(**{name: getattr(chosen, name) for name in Optimizer.model_fields})
        self._checkpointing = chosen.gradient_checkpointing
        self._critic: Critic | None = None
        self._local: LocalLearner | None = None
        self._left = policy.version
        """The policy's version as this learner left it"""

    @property
    def learning_rate(self) -> float:
        """Of each step, and the peak of a `finetune`; may be set anew at any time"""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._learning_rate = expect_rate("Learner", value)

    def rl_step(
        self, groups: Sequence[Group], objective: str | Objective | Surrogate = "dapo", **options: Unpack[StepKeywords]
    ) -> Measured:
        """One RL step on judged groups; groups whose rewards are all equal have no gradient and are left out.

        `objective`: a name (`reasonloop.objectives`), an `Objective`, a function (log-probs, log ratios, targets) -> each
        token's loss, or `module:name` of one. "ppo" keeps a critic, a copy of the policy as it was at its first step.

        `options` are those of `[rl]`: `advantage` (the objective's own; or a function of a group's rewards), `clip_low`,
        `clip_high`, `updates_per_step` (1), `epochs` (1), `learning_rate` (the learner's), `seed` (0), and `kl_coef` (0)
        with `reference`, the policy that the KL in the loss is to (`policy.copy()`, made before the first step).

        Ratios are to the log-probs that the rollouts were sampled with, so that groups of older weights are learned from as
        what they are. Those that carry the weights' present version are compared with the learner's own numbers first,
        before anything is changed: InputError where they differ by more than rounding (another policy's groups, say).
        `off_policy=True` leaves that out.

        Returns what was measured: loss, grad_norm (before clipping), entropy, clip_fraction, k1 (nats a token from the
        behaviour policy), kl (k3 to the reference), learning_rate; of the groups reward, right, length, cut_off; how many
        there were (`groups`) and had a gradient (`groups_used`). NaN where no group had one, and nothing was learned.
        """
        own: dict[str, Any] = dict(options)
        reference, off_policy = own.pop("reference", None), own.pop("off_policy", False)
        goal = chosen_objective(objective, own)
        chosen = validated(StepOptions, own, "rl_step")
        self._check_reference(reference, chosen.kl_coef)
        groups, sampling = self._checked(groups)
        useful = useful_groups(groups, goal)
        counts = {"groups": float(len(groups)), "groups_used": float(len(useful))}
        told = rollout_metrics([rollout for group in groups for rollout in group.rollouts])
        told = {name: told[name] for name in ("reward", "right", "length", "cut_off")}
        if not useful:
            missing = ("loss", "grad_norm", "entropy", "clip_fraction", "k1", "kl", "learning_rate")
            return {**told, **counts, **dict.fromkeys(missing, math.nan)}
        if not off_policy:
            self._check_agreement(useful, sampling)
        local = self._learner(sampling)
        estimator: Estimator = GroupAdvantages(goal)
        if goal.advantage == "gae":
            self._critic = self._critic or Critic(self.policy, Ppo(), self._optimizer)
            local.critic = estimator = self._critic
        options_of_rl = Rl(
            updates_per_step=chosen.updates_per_step, epochs=chosen.epochs, kl_coef=chosen.kl_coef, kl_in="loss"
        )
        step = StepLearner(
            *(local, estimator, goal, options_of_rl, sampling, chosen.seed),
            planned=sum(len(group.rollouts) for group in groups),
            reference=reference if chosen.kl_coef else None,
        )
        with self._counting(local):
            measured = step.learn(
                Step(useful[0].rollouts[0].place, list(groups), useful), chosen.learning_rate or self.learning_rate
            )
        return {**told, **counts, **measured}

    def sft_step(self, examples: Pairs, learning_rate: float | None = None) -> Measured:
        """One update of cross entropy on all the examples (as `finetune` takes them): the mean over response tokens.

        Returns loss (nats a token), grad_norm, entropy, tokens and others.
        """
        rate = self.learning_rate if learning_rate is None else expect_rate("sft_step", learning_rate)
        found = self._examples(examples)
        if not found.pairs:
            raise InputError("sft_step: no examples")
        local = self._learner(Sampling())
        with self._counting(local):
            return local.update(batch_of(found, range(len(found.pairs))), rate)

    def finetune(self, examples: Pairs, **options: Unpack[FinetuneKeywords]) -> list[Measured]:
        """Supervised fine-tuning, with moments of its own: `epochs` (2) passes in batches of `batch_size` (64), the rate
        falling from a peak (`learning_rate`; unset: the learner's) by `schedule` ("cosine") after `warmup` (0.05 of the
        updates).
        `seed` (0) orders the examples. The loss is on response tokens alone.

        `examples`: what `experts` gives, rollouts, or pairs of a Problem (or a prompt's text) and a response's text. Returns
        what each update measured; empty where there are no examples.
        """
        chosen = validated(FinetuneOptions, dict(options), "finetune")
        found = self._examples(examples)
        if not found.pairs:
            return []
        training = Sft(
            learning_rate=chosen.learning_rate or self.learning_rate,
            schedule=chosen.schedule,
            batch_size=chosen.batch_size,
            warmup=chosen.warmup,
        )
        passes = Passes(len(found.pairs), training, chosen.epochs, chosen.seed, Place(stage="rft"))
        local = LocalLearner(self.policy, self._optimizer, Sampling(), self._checkpointing)
        self._local = None  # its moments will be of other weights
        results = []
        for update in range(passes.total):
            with self._counting(local):
                results.append(local.update(batch_of(found, passes.chosen(update)), passes.rate(update)))
        return results

    def __repr__(self) -> str:
        return f"Learner({self.policy!r}, learning_rate={self.learning_rate:g})"

    def _learner(self, sampling: Sampling) -> LocalLearner:
        """With the moments of the steps before, and log-probs of this distribution."""
        # its float32 copies would be of other weights, or it would train what an adapter has frozen
        if self._local is None or self._left != self.policy.version or self._adapter is not self.policy.adapter:
            self._adapter = self.policy.adapter
            self._local = LocalLearner(self.policy, self._optimizer, sampling, self._checkpointing)
        self._local.sampling = sampling
        return self._local

    @contextmanager
    def _counting(self, local: LocalLearner) -> Iterator[None]:
        """The policy's version counts the learner's updates, also where it is interrupted."""
        before, skipped = local.updates, local.skipped
        try:
            yield
        finally:
            self.policy.version += local.updates - before
            self.skipped += local.skipped - skipped
            self._left = self.policy.version

    def _checked(self, groups: Sequence[Group]) -> tuple[list[Group], Sampling]:
        """The groups, and the distribution that they were sampled from."""
        if isinstance(groups, Group) or not isinstance(groups, Iterable):
            raise InputError(
                f"rl_step: got a {type(groups).__name__}; expected a list of groups, as `sample` gives them"
            )
        found = list(groups)
        for group in found:
            if not isinstance(group, Group):
                raise InputError(f"rl_step: got a {type(group).__name__}; expected groups, as `sample` gives them")
        if not any(group.rollouts for group in found):
            raise InputError("rl_step: no rollouts; expected groups with some")
        for group in found:
            if not np.isfinite(group.rewards).all():
                raise InputError(f"rl_step: problem {group.problem.id!r} has a reward that is no finite number")
            if any(np.isnan(rollout.logprobs).any() for rollout in group.rollouts):
                raise InputError(
                    f"rl_step: problem {group.problem.id!r} has rollouts without log-probs (imported ones?)"
                )
        distributions = [group.sampling or Sampling() for group in found]
        other = next((one for one in distributions if one != distributions[0]), None)
        if other is not None:
            raise InputError(
                f"rl_step: groups of two distributions ({distributions[0]}; {other}); expected one step for each"
            )
        largest = max(
            int(max(r.prompt_tokens.max(), r.response_tokens.max())) for group in found for r in group.rollouts
        )
        if largest >= self.policy.vocabulary:
            raise InputError(
                f"rl_step: token {largest}, and the policy's vocabulary has {self.policy.vocabulary}: other policy?"
            )
        return found, distributions[0]

    def _check_reference(self, reference: Policy | None, kl_coef: float) -> None:
        """Raises InputError for a KL without the policy that it is to, or to the one that is trained."""
        if reference is None and kl_coef:
            raise InputError(
                f"rl_step: kl_coef = {kl_coef}: expected reference=, the policy that the KL is to (policy.copy() before the "
                "first step)"
            )
        if reference is not None:
            expect_policy("rl_step: reference", reference)
        if reference is self.policy:
            raise InputError(
                "rl_step: the reference is the policy that is trained: its KL would always be 0; expected policy.copy(), "
                "made before the first step"
            )

    def _check_agreement(self, groups: Sequence[Group], sampling: Sampling) -> None:
        """Raises InputError where rollouts that say they are of these weights have other log-probs than the learner's."""
        present = [r for group in groups for r in group.rollouts if r.version == self.policy.version]
        some = present[:: max(1, len(present) // CHECKED)][:CHECKED]
        if not some:
            return
        scored = score(self.policy, some, sampling)
        gaps = [
            np.abs(own - rollout.logprobs)[slice(None) if rollout.sampled is None else rollout.sampled]
            for own, rollout in zip(scored, some, strict=True)
        ]
        gap = float(np.concatenate(gaps).mean())
        dtype = str(next(self.policy.model.parameters()).dtype).removeprefix("torch.")
        if not gap < AGREE[dtype]:
            raise InputError(
                f"rl_step: the groups' log-probs differ by {gap:.2g} nats a token from the learner's for the same weights: "
                "they are another policy's, or the weights were changed outside of a Learner; expected groups that "
                "reasonloop.sample made with this policy, or off_policy=True"
            )

    def _examples(self, examples: Pairs) -> Examples:
        """Token pairs. Raises InputError for what is none: whole groups, say, whose wrong responses are no examples."""
        pairs, sampled = [], []
        codec = self.policy.codec
        for one in examples.rollouts if isinstance(examples, Experts) else examples:
            if isinstance(one, Rollout):
                pairs.append((one.prompt_tokens, one.response_tokens))
                sampled.append(one.sampled)
                continue
            if isinstance(one, Group):
                raise InputError("finetune: got groups; expected experts(groups), or the rollouts to learn from")
            if not (isinstance(one, tuple | list) and len(one) == 2 and isinstance(one[1], str)):
                raise InputError(
                    f"finetune: got a {type(one).__name__}; expected (problem or prompt, response), or rollouts"
                )
            if not isinstance(one[0], Problem | str):
                raise InputError(f"finetune: the prompt is a {type(one[0]).__name__}; expected a Problem, or its text")
            problem = one[0] if isinstance(one[0], Problem) else Problem(id="prompt", prompt=str(one[0]))
            pairs.append((codec.encode_prompt(problem), codec.encode_response(one[1])))
            sampled.append(None)
        longest = max((len(prompt) + len(response) for prompt, response in pairs), default=0)
        if longest > codec.context_length:
            raise InputError(
                f"finetune: an example has {longest} tokens, and the model's context {codec.context_length}; leave it out"
            )
        return Examples(pairs, None, sampled)


def expect_rate(where: str, value: Any) -> float:
    """The learning rate. InputError unless it is a finite number above 0."""
    if isinstance(value, bool) or not (isinstance(value, int | float) and 0 < value < math.inf):
        raise InputError(f"{where}: learning_rate = {value!r}: expected a finite number above 0")
    return float(value)


def chosen_objective(objective: str | Objective | Surrogate, options: dict[str, Any]) -> Objective:
    """The objective that is meant; its parts are taken out of `options`."""
    advantage: str | Callable[[np.ndarray], np.ndarray] | None = options.pop("advantage", None)
    parts: dict[str, Any] = {name: options.pop(name) for name in ("clip_low", "clip_high") if name in options}
    if isinstance(advantage, str):
        parts["advantage"] = advantage
    named = objective if isinstance(objective, str) else "dapo"
    rl = validated(Rl, {"objective": named, **parts}, "rl_step")
    found: Objective | None = None
    if isinstance(objective, Objective):
        found = objective
    elif not isinstance(objective, str):
        if not callable(objective):
            raise InputError(f"rl_step: objective is a {type(objective).__name__}; expected a name or an Objective")
        found = Objective(surrogate=objective)
    return objective_of(rl, found, advantage if callable(advantage) else None)
