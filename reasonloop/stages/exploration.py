"""Exploration: reinforcement learning from a policy, every rollout kept."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from reasonloop.errors import RunError
from reasonloop.evaluation.evaluate import evaluate_policy, significantly_below
from reasonloop.learner.critic import Critic
from reasonloop.learner.estimates import Estimator, GroupAdvantages
from reasonloop.learner.local import scheduled
from reasonloop.learner.losses import objective_of
from reasonloop.records import Group, Place, Rollout
from reasonloop.rewards.effort import answer_end_of
from reasonloop.rewards.exploration import ExplorationReward
from reasonloop.runs.checkpoints import Checkpoint
from reasonloop.runs.dry import RL_ROLLOUT
from reasonloop.runs.session import Session
from reasonloop.runs.stages import Arm, Budget, Explored, Source
from reasonloop.stages.adapted import policy_of_stage
from reasonloop.stages.alarm import check_first_update, diverging, expect_good
from reasonloop.stages.common import spent_before, tell_skipped, turn_of
from reasonloop.stages.evaluate import show_held_out
from reasonloop.stages.learning import StepLearner
from reasonloop.stages.replay import Replay
from reasonloop.stages.sampling import Step, StepSampler, outcome_of
from reasonloop.stages.solved import greedy_rollouts, unsolved


@dataclass(frozen=True)
class ExplorationState:
    """How far an exploration has come: what its checkpoint knows beside weights and optimizer."""

    step: int = 0
    """Steps done"""
    position: int = 0
    """In the endless order of problems"""
    rollouts: int = 0
    done: bool = False
    ended_early: bool = False
    """Adaptive exploration: pass@k on the probe problems has fallen"""
    probe: float | None = None
    """The last average on the probe problems"""
    best_solved: tuple[int, ...] | None = None
    """Of the probe problems, which were solved when most of them were"""
    best_average: float | None = None
    """On the probe problems, of the policy that `keep_best` keeps"""

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> ExplorationState | None:
        found = checkpoint.state()
        if found is None:
            return None
        known = {field.name: found[field.name] for field in fields(cls) if field.name in found}
        solved = known.get("best_solved")
        return cls(**known | {"best_solved": None if solved is None else tuple(solved)})

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if value is not None}

    def gone_on(self) -> ExplorationState:
        """For another exploration that goes on from here"""
        return replace(self, done=False, ended_early=False)

    def over(self, until: int) -> bool:
        return self.rollouts >= until or self.ended_early


def explore(run: Session, start: Source, place: Place, arm: Arm, budget: Budget) -> Explored:
    """See `Stages.explore`."""
    checkpoint = run.folder.checkpoint(place)
    state = ExplorationState.of(checkpoint)
    if state is None or not state.over(budget.until):
        exploration = Exploration(run, start, place, arm, budget)
        for _ in exploration.steps():
            pass
        state = exploration.state
    best = (
        run.folder.checkpoint(Place(place.branch, "best", place.iteration)).folder
        if state.best_average is not None
        else None
    )
    return Explored(checkpoint.folder if budget.kept else None, state.rollouts, best)


class Exploration:
    """An exploration that is being worked on: opened where its checkpoint, or else its start, stands."""

    def __init__(self, run: Session, start: Source, place: Place, arm: Arm, budget: Budget) -> None:
        recipe, options = run.recipe, run.recipe.rl
        self.run, self.arm, self.budget, self.options = run, arm, budget, options
        self.checkpoint = run.folder.checkpoint(place)
        found = ExplorationState.of(self.checkpoint)
        self.state = (found or ExplorationState()).gone_on()
        self.place = replace(place, step=self.state.step)
        self.planned = max(1, budget.end // options.rollouts_per_step)
        self.before = spent_before(run, place) if budget.before is None else budget.before
        prompts = self._prompts(start, fresh=found is None)
        self._take_back()
        policy = policy_of_stage(run, start, place, begun=found is not None) if budget.learn else run.take_policy(start)
        kl_in_reward = options.kl_coef if options.kl_in == "reward" else 0.0
        critic = Critic(policy, recipe.ppo, recipe.optimizer, kl_in_reward) if options.objective == "ppo" else None
        self.learner = run.learner(policy, recipe.sampling, critic)
        if found:
            self._go_on(place)
        self.objective = objective_of(options)
        self.estimator: Estimator = critic or GroupAdvantages(self.objective)
        self.reference = None
        if options.kl_coef:
            self.reference = policy.without_adapter() if policy.adapter is not None else run.policy(start)
        explorer = None
        if recipe.exploration.form != "none" and not budget.outcome_only:
            explorer = ExplorationReward(
                *(recipe.exploration, run.codec.decode, answer_end_of(run.task)),
                seed=recipe.seed,
                device=str(policy.device),
            )
        outcome = outcome_of(options.reward, options.overlong_buffer, recipe.sampling.max_tokens)
        self.sampler = StepSampler(run, self.learner, self.objective, prompts, self.reference, explorer, outcome)
        if self.own and recipe.rloop.replay and place.iteration:
            self.sampler.replay = Replay(run, place)
        if self.own and recipe.rloop.until_right:
            stored = run.store.read(place.branch, place.iteration)
            self.sampler.until_right = recipe.rloop.until_right
            self.sampler.right.update(rollout.problem_id for rollout in stored if rollout.right)
        self.step_learner = StepLearner(
            *(self.learner, self.estimator, self.objective, options, recipe.sampling, recipe.seed),
            planned=options.rollouts_per_step,
            exact=run.engine.exact,
            reference=self.reference,
            on_first=lambda measured: check_first_update(run, self.learner, measured, self.where),
            critic=recipe.ppo if critic is not None else None,
        )
        self.began = self.saved_at = time.monotonic()
        if self.adaptive and self.state.best_solved is None:
            self.probe()  # what is lost counts from the start

    def _go_on(self, place: Place) -> None:
        try:
            self.checkpoint.restore(self.learner)
        except FileNotFoundError:
            raise RunError(
                f"the exploration {place.name} ended with {self.state.rollouts} rollouts and can't go on to "
                f"{self.budget.until}: give the budget that it had before planned={self.budget.until}, in a new run"
            ) from None

    def steps(self) -> Iterator[Step]:
        """Works on it, a step at a time: each is stored, learned from, reported, and saved where that is due."""
        with diverging(self.run, lambda: self.where, "rl.learning_rate"):
            while not self.over:
                step = self.sample()
                self.keep(step)
                if self.budget.learn and step.useful:
                    self.learn(step)
                self.report(step)
                self.probe_if_due()
                self.save_if_due()
                yield step

    @property
    def where(self) -> str:
        """For a reader"""
        return f"{self.place.name}, step {self.place.step + 1}"

    @property
    def over(self) -> bool:
        return self.state.over(self.budget.until)

    @property
    def own(self) -> bool:
        """Whether it is RLoop's own, and not the baseline's beside it"""
        return self.arm.name == "main" and "rloop" in self.arm.uses

    @property
    def adaptive(self) -> bool:
        """Whether the probe may end the exploration"""
        return self.run.recipe.rloop.adaptive and self.own

    def sample(self) -> Step:
        self.began = time.monotonic()
        state, budget = self.state, self.budget
        until = budget.end if budget.whole else budget.until
        step, position = self.sampler.sample(self.place, state.position, state.rollouts, until, self.planned)
        self.state = replace(state, position=position, rollouts=state.rollouts + len(step.rollouts))
        return step

    def keep(self, step: Step) -> None:
        """Every rollout goes to the store."""
        self.run.store.write(step.rollouts, self.place)
        step.seconds = time.monotonic() - self.began

    def learn(self, step: Step) -> None:
        options, number = self.options, self.place.step
        # refills make steps fewer: what a schedule counts is the rollouts spent, in plain steps
        at = (
            number
            if number < options.warmup_steps
            else max(number, self.state.rollouts / options.rollouts_per_step - 1)
        )
        rate = scheduled(options.learning_rate, options.schedule, at, self.planned, options.warmup_steps)
        skipped = self.learner.skipped
        step.measured = self.step_learner.learn(step, rate)
        del step.measured["loss"]  # a policy gradient's value tells a reader of the run nothing
        tell_skipped(self.run, self.learner, skipped, f"step {number + 1}")

    def report(self, step: Step) -> None:
        """The step's line in metrics.jsonl and on the screen; the step is done."""
        spent, explored = step.rollouts, step.exploration()
        self._warn_of_judge(explored, len(spent))
        seconds = time.monotonic() - self.began
        line = {
            **self.place.keys,
            **self._keys(),
            **rollout_metrics(spent),
            **step.measured,
            **explored,
            "engine_mismatch": step.mismatch,
            "groups_used": len(step.useful),
            "groups_sampled": len(step.groups),
            "skipped_updates": self.learner.skipped,
            "seconds": round(seconds, 3),
            "sampling_seconds": round(step.seconds, 3),
            "tokens_per_second": round(sum(rollout.length for rollout in spent) / seconds, 1),
        }
        self.run.folder.log(**line)
        self.state = replace(self.state, step=self.state.step + 1)
        self.place = replace(self.place, step=self.state.step)
        self.run.progress.advance(len(spent) * (RL_ROLLOUT if self.budget.learn else 1))
        # refills spend the rollouts of later steps: an exploration that is over has had all of its steps
        planned = self.state.step if self.over else max(self.state.step + 1, self.planned)
        which = "".join(f" branch {number}, iteration" for number in self.place.twin)
        self.run.progress.step(
            self.arm.label + which,
            self.state.step,
            planned,
            iteration=self.place.iteration if "rloop" in self.arm.uses else None,
            reward=line["reward"],
            tokens_per_second=line["tokens_per_second"],
        )
        self._tell_refills()

    def _tell_refills(self) -> None:
        """Says, once a run, why an exploration has fewer steps than the recipe: its rollouts are what is fixed."""
        state, each = self.state, self.options.rollouts_per_step
        refilled, short = state.rollouts - state.step * each, state.step < self.planned
        if short and state.rollouts >= self.planned * each and "refills" not in self.run.said:
            self.run.said.add("refills")
            also = " and the greedy responses of rl.skip_solved" if self.options.skip_solved else ""
            self.run.progress.say(
                f"{self.arm.label}: its {state.rollouts:,} rollouts are spent after {state.step} of {self.planned} steps: "
                f"{refilled:,} went into refills{also} (rl.refill_rounds = {self.options.refill_rounds})"
            )

    def probe_if_due(self) -> None:
        if self.options.probe_every and self.state.step % self.options.probe_every == 0:
            self.probe()
            average, best_yet = self.state.probe or 0.0, self.state.best_average
            if self.budget.keep_best and (best_yet is None or average > best_yet):
                self.state = replace(self.state, best_average=average)
                expect_good(self.learner)
                best = self.run.folder.checkpoint(replace(self.place, stage="best"))
                best.save(self.learner, {"step": self.state.step, "done": True}, trainer_state=False)

    def probe(self) -> None:
        """Evaluates on the probe problems; adaptive exploration ends when pass@k is significantly below its best."""
        run = self.run
        result = evaluate_policy(run, self.learner.weights, "probe", run.recipe.eval.probe_samples)
        show_held_out(run, "probe", result["metrics"])
        metrics = {name: value["value"] for name, value in result["metrics"].items()}
        keys = {**self.place.keys, "stage": "probe", "step": self.state.step - 1}
        run.folder.log(**keys, **self._keys(), **metrics)
        average = next(value for name, value in metrics.items() if name.startswith("avg@"))
        solved, best = tuple(int(problem["correct"] > 0) for problem in result["problems"]), self.state.best_solved
        self.state = replace(self.state, probe=average)
        if best is None or sum(solved) > sum(best):
            self.state = replace(self.state, best_solved=solved)
        elif self.adaptive and significantly_below(solved, best):
            self.state = replace(self.state, ended_early=True)

    def save_if_due(self) -> None:
        run = self.run
        if self.over or run.stopping or time.monotonic() - self.saved_at >= run.recipe.checkpoint_seconds:
            self.state = replace(self.state, done=self.over)
            ended = self.over and self.budget.ends
            expect_good(self.learner)
            if self.over and not self.budget.kept:
                self.checkpoint.skip(self.state.to_json())
                self.checkpoint.drop_policy()
            else:
                self.checkpoint.save(self.learner, self.state.to_json(), trainer_state=not ended)
            run.folder.set_state(self.place.name, self.place.iteration, self.state.step)
            if self.over and self.budget.kept:
                run.hold_trained(self.checkpoint.folder, self.learner)
            self.saved_at = time.monotonic()
            run.stop_point()

    def _prompts(self, start: Source, *, fresh: bool) -> list[Group]:
        """The training problems, but for those that the start solves already, where the recipe leaves them out."""
        run, options, began = self.run, self.options, time.monotonic()
        prompts = run.prompts("train")
        if self.own and run.recipe.rloop.problems:
            return turn_of(prompts, run.recipe.rloop.problems, run.recipe.seed, self.place.iteration)
        # an early end may have left a last iteration so few rollouts that asking would take them all
        if not options.skip_solved or len(prompts) + options.rollouts_per_step > self.budget.end:
            return prompts
        greedy = greedy_rollouts(run, start, self.place.iteration)
        if fresh:
            # in whole groups: arms that ask more or less often must be able to spend exactly the same
            spent = math.ceil(len(greedy) / options.group_size) * options.group_size
            self.state = replace(self.state, rollouts=spent)
            run.progress.advance(len(greedy))
            run.progress.skip(len(greedy) * (RL_ROLLOUT - 1))
            where = {**self.place.keys, "stage": "greedy"}
            run.folder.unlog(**where)
            solved, seconds = sum(rollout.right for rollout in greedy), round(time.monotonic() - began, 3)
            run.folder.log(**where, **self._keys(), solved=solved, seconds=seconds)
        return unsolved(run, prompts, greedy, self.place.iteration)

    def _take_back(self) -> None:
        """What a killed process did behind the checkpoint is done again."""
        where = {"branch": self.place.branch, "iteration": self.place.iteration}
        self.run.folder.unlog(stage="explore", **where, from_step=self.state.step)
        self.run.folder.unlog(stage="probe", **where, from_step=self.state.step or -1)
        self.run.store.take_back(self.place)

    def _keys(self) -> dict[str, Any]:
        shared = self.budget.shared_with
        also = {"shared_with": shared.name} if shared is not None else {}
        return {**self.arm.keys, **also, "rollouts": self.budget.counted(self.state.rollouts) + self.before}

    def _warn_of_judge(self, measured: Mapping[str, float], asked: int) -> None:
        failed = measured.get("judge_failures", 0.0)
        if failed > asked / 2:
            names = (name for name in measured if name.startswith("judge_failures_"))
            kinds = ", ".join(name.removeprefix("judge_failures_") for name in names)
            self.run.progress.say(
                f"the judge gave no score to {failed:.0f} of {asked} responses ({kinds}): they go without it"
            )


def rollout_metrics(rollouts: Sequence[Rollout]) -> dict[str, Any]:
    """Means over the rollouts of a step, and how often each verdict was given."""
    parts: dict[str, list[float]] = {}
    for rollout in rollouts:
        for name, value in rollout.reward_parts.items():
            parts.setdefault(name, []).append(value)
    return {
        "reward": float(np.mean([r.reward for r in rollouts])),
        "right": float(np.mean([r.right for r in rollouts])),
        "length": float(np.mean([r.length for r in rollouts])),
        "cut_off": float(np.mean([r.finish == "length" for r in rollouts])),
        "reward_parts": {name: float(np.mean(values)) for name, values in sorted(parts.items())},
        "verdicts": dict(sorted(Counter(str(r.verdict) for r in rollouts).items())),
    }
