"""Exploration: reinforcement learning from a policy, every rollout kept."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reasonloop.engine.protocol import Address
from reasonloop.evaluation.evaluate import evaluate_policy, significantly_below
from reasonloop.learner.batch import useful_groups
from reasonloop.learner.critic import Critic
from reasonloop.learner.learner import Learner, scheduled
from reasonloop.policy.policy import Policy
from reasonloop.records import Rollout
from reasonloop.rewards.effort import answer_end_of
from reasonloop.rewards.exploration import Explorer
from reasonloop.run.checkpoints import Checkpoint
from reasonloop.run.folder import Run
from reasonloop.stages.common import RL_ROLLOUT, Source, checkpoint, load_policy, rollouts_before, tell_skipped
from reasonloop.stages.evaluate import show_held_out
from reasonloop.stages.learning import learn_step, objective_of
from reasonloop.stages.sampling import StepSampler
from reasonloop.stages.solved import greedy_rollouts, unsolved


def explore(
    run: Run,
    start: Source,
    *,
    iteration: int = 0,
    branch: str = "main",
    rollouts: int,
    continued: Checkpoint | None = None,
    seam: Checkpoint | None = None,
    learn: bool = True,
    outcome_only: bool = False,
    keep_best: bool = False,
    milestone: int = 0,
    passing: Callable[[Policy, int], None] | None = None,
) -> Path:
    """RL from the policy `start` until `rollouts` rollouts are sampled; every one of them goes to the store.

    `continued`: a finished exploration that this one goes on from (its steps count as this one's first steps).
    `seam`: where to leave the state before a last step that `rollouts` cut short, for a longer exploration to continue.
    `learn=False` samples without learning; `outcome_only` leaves the exploration reward out; `keep_best` keeps
    the policy that did best on the probe problems (`best_policy`). `passing` is given the policy and the rollouts spent,
    once, when every further `milestone` rollouts are spent and more are to come. Returns the folder of the policy that
    came out.
    """
    options, stage = run.recipe.rl, f"{branch}-explore-{iteration}"
    own = checkpoint(run, stage)
    cursor = own.cursor()
    began = time.monotonic()
    if cursor is not None and cursor.get("done"):
        return own.folder
    source = own if cursor is not None else continued
    if cursor is None:
        cursor = {"step": 0, "groups": 0, "rollouts": 0, "done": False}
        if continued is not None:
            cursor = {**(continued.cursor() or {}), "done": False}
            cursor.pop("ended_early", None)
            cursor["continued_at"] = cursor["step"]
    problems = run.problems["train"]
    # an early end may have left a last iteration so few rollouts that asking would take them all
    if options.skip_solved and len(problems) + options.rollouts_per_step <= rollouts:
        greedy = greedy_rollouts(run, start, iteration)
        problems = unsolved(run, greedy, iteration)
        if source is None:
            # in whole groups: arms that ask more or less often must be able to spend exactly the same
            cursor["rollouts"] = math.ceil(len(greedy) / options.group_size) * options.group_size
            solved = sum(rollout.right for rollout in greedy)
            seconds = round(time.monotonic() - began, 3)
            run.progress.advance(len(greedy))
            run.progress.skip(len(greedy) * (RL_ROLLOUT - 1))
            run.unlog(stage="greedy", branch=branch, iteration=iteration)
            run.log(stage="greedy", branch=branch, iteration=iteration, step=0, solved=solved, seconds=seconds)
    run.unlog(stage="explore", branch=branch, iteration=iteration, from_step=cursor["step"])
    run.store.take_back(branch, iteration, cursor["step"])
    run.unlog(stage="probe", branch=branch, iteration=iteration, from_step=cursor["step"] or -1)

    policy = load_policy(run, source.folder if source else start)
    critic = Critic(policy, run.recipe.ppo, run.recipe.optimizer) if options.objective == "ppo" else None
    learner = Learner(
        policy, run.recipe.optimizer, run.recipe.sampling, run.recipe.model.gradient_checkpointing, critic
    )
    if source:
        learner.load(source.folder)
    reference = load_policy(run, start) if options.kl_coef else None
    objective = objective_of(options)
    explorer = None
    if run.recipe.exploration.form != "none" and not outcome_only:
        explorer = Explorer(
            run.recipe.exploration,
            policy.decode,
            answer_end_of(run.task),
            seed=run.recipe.seed,
            device=str(policy.device),
        )
    sampler = StepSampler(run, policy, objective, problems, reference, explorer)
    planned = max(1, rollouts // options.rollouts_per_step)
    saved_at = time.monotonic()
    if _adaptive(run, branch) and "best_probe" not in cursor:
        cursor = _probe(run, policy, cursor, branch, iteration)  # what is lost counts from the start
    while cursor["rollouts"] < rollouts and not cursor.get("ended_early"):
        if passing and milestone and (passed := cursor["rollouts"] // milestone) > cursor.get("passed", 0):
            own.save(learner, cursor)  # so that it is asked again where it is interrupted
            passing(policy, cursor["rollouts"])
            cursor = {**cursor, "passed": passed}
        began = time.monotonic()
        address = Address(run.recipe.seed, "rl", branch, iteration, cursor["step"])
        before = cursor
        sample, cursor = sampler.step(address, cursor, rollouts, planned)
        if sample.cut and seam is not None:
            seam.save(learner, {**before, "continued_at": before["step"]})
        spent = sample.rollouts
        run.store.write(spent, branch=branch, iteration=iteration, step=cursor["step"])
        useful = useful_groups(sample.groups, objective)[: options.problems_per_step]
        sampled = time.monotonic()
        measured: dict[str, float] = {}
        if useful and learn:
            # refills make steps fewer: what a schedule counts is the rollouts spent, in plain steps
            step, warmup = cursor["step"], options.warmup_steps
            at = step if step < warmup else max(step, cursor["rollouts"] / options.rollouts_per_step - 1)
            rate = scheduled(options.learning_rate, options.schedule, at, planned, warmup)
            skipped = learner.skipped
            measured = learn_step(run, learner, useful, objective, rate, cursor["step"], sample, reference)
            tell_skipped(run, learner, skipped, f"step {cursor['step'] + 1}")
        cursor = {**cursor, "step": cursor["step"] + 1}
        explored = sample.measured()
        _warn_of_judge(run, explored, len(spent))
        counts = {"groups_used": len(useful), "groups_sampled": len(sample.groups), "skipped_updates": learner.skipped}
        run.progress.advance(len(spent) * (RL_ROLLOUT if learn else 1))
        _report_step(run, spent, cursor, began, sampled, planned, branch, iteration, measured | explored | counts)
        if options.probe_every and cursor["step"] % options.probe_every == 0:
            cursor = _probe(run, policy, cursor, branch, iteration)
            if keep_best and cursor["probe"] > cursor.get("best_average", -1.0):
                best = f"{branch}-best-{iteration}"
                cursor = {**cursor, "best_average": cursor["probe"], "best": best}
                checkpoint(run, best).save(learner, {"step": cursor["step"], "done": True}, trainer_state=False)
        over = cursor["rollouts"] >= rollouts or cursor.get("ended_early", False)
        if over and not cursor.get("ended_early"):  # else a further iteration spends what is left
            run.progress.skip(max(0, rollouts - cursor["rollouts"]) * RL_ROLLOUT)
        if over or run.stopping or time.monotonic() - saved_at >= run.recipe.checkpoint_seconds:
            own.save(learner, {**cursor, "done": over})
            run.set_state(stage, iteration, cursor["step"])
            saved_at = time.monotonic()
            run.stop_point()
    if not own.done:  # what it continued had spent all the rollouts
        own.save(learner, {**cursor, "done": True})
    return own.folder


def best_policy(run: Run, branch: str, iteration: int = 0) -> Path | None:
    """What `keep_best` kept: the policy with the best average on the probe problems, of the first such step."""
    cursor = checkpoint(run, f"{branch}-explore-{iteration}").cursor() or {}
    return checkpoint(run, cursor["best"]).folder if "best" in cursor else None


def _warn_of_judge(run: Run, measured: dict[str, float], asked: int) -> None:
    failed = measured.get("judge_failures", 0.0)
    if failed > asked / 2:
        kinds = ", ".join(
            name.removeprefix("judge_failures_") for name in measured if name.startswith("judge_failures_")
        )
        run.progress.say(f"the judge gave no score to {failed:.0f} of {asked} responses ({kinds}): they go without it")


def _report_step(
    run: Run,
    spent: Sequence[Rollout],
    cursor: dict[str, Any],
    began: float,
    sampled: float,
    planned: int,
    branch: str,
    iteration: int,
    measured: dict[str, Any],
) -> None:
    """A step's line in metrics.jsonl and on the screen. `began` and `sampled` are monotonic times."""
    seconds = time.monotonic() - began
    line = {
        "stage": "explore",
        "branch": branch,
        "iteration": iteration,
        "step": cursor["step"] - 1,
        "rollouts": cursor["rollouts"] + rollouts_before(run, branch, iteration),
        **_rollout_metrics(spent),
        **measured,
        "seconds": round(seconds, 3),
        "sampling_seconds": round(sampled - began, 3),
        "tokens_per_second": round(sum(len(rollout.response_tokens) for rollout in spent) / seconds, 1),
    }
    run.log(**line)
    method = run.recipe.method
    run.progress.step(
        "vanilla RL" if branch == "vanilla" or method == "rl" else "RL" if method == "rlsp" else "explore",
        min(cursor["step"], planned),
        planned,
        iteration=iteration if method == "rloop" and branch == "main" else None,
        reward=line["reward"],
        tokens_per_second=line["tokens_per_second"],
    )


def _rollout_metrics(rollouts: Sequence[Rollout]) -> dict[str, Any]:
    parts: dict[str, list[float]] = {}
    for rollout in rollouts:
        for name, value in rollout.reward_parts.items():
            parts.setdefault(name, []).append(value)
    return {
        "reward": float(np.mean([r.reward for r in rollouts])),
        "right": float(np.mean([r.right for r in rollouts])),
        "length": float(np.mean([len(r.response_tokens) for r in rollouts])),
        "cut_off": float(np.mean([r.finish == "length" for r in rollouts])),
        "reward_parts": {name: float(np.mean(values)) for name, values in sorted(parts.items())},
        "verdicts": dict(sorted(Counter(str(r.verdict) for r in rollouts).items())),
    }


def _adaptive(run: Run, branch: str) -> bool:
    """Whether the probe may end the exploration: RLoop's, never that of the baseline beside it."""
    return run.recipe.rloop.adaptive and branch == "main"


def _probe(run: Run, policy: Policy, cursor: dict[str, Any], branch: str, iteration: int) -> dict[str, Any]:
    """Evaluates on the probe problems; adaptive exploration ends when pass@k is significantly below its best."""
    result = evaluate_policy(run, policy, "probe", run.recipe.eval.probe_samples)
    show_held_out(run, result)
    metrics = {name: value["value"] for name, value in result["metrics"].items()}
    run.log(
        stage="probe",
        branch=branch,
        iteration=iteration,
        step=cursor["step"] - 1,
        rollouts=cursor["rollouts"] + rollouts_before(run, branch, iteration),
        **metrics,
    )
    cursor = {**cursor, "probe": next(value for name, value in metrics.items() if name.startswith("avg@"))}
    solved = [int(problem["correct"] > 0) for problem in result["problems"]]
    best = cursor.get("best_probe")
    if best is None or sum(solved) > sum(best):
        return {**cursor, "best_probe": solved}
    if _adaptive(run, branch) and significantly_below(solved, best):
        return {**cursor, "ended_early": True}
    return cursor
