"""Exploration: reinforcement learning from a policy, every rollout kept."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from reasonloop.checkpoints import Checkpoint
from reasonloop.config import Rl
from reasonloop.evaluation.evaluate import evaluate_policy, significantly_below
from reasonloop.learner.batch import reinforced, useful_groups, with_reference
from reasonloop.learner.learner import Learner, scheduled
from reasonloop.learner.losses import OBJECTIVES, Objective
from reasonloop.policy.policy import Policy
from reasonloop.records import Problem, Rollout
from reasonloop.rewards.outcome import outcome_reward, with_kl_penalty
from reasonloop.rollout.engine import Address, Prompt
from reasonloop.rollout.native import NativeEngine
from reasonloop.runs import Run
from reasonloop.stages.common import RL_ROLLOUT, Source, checkpoint, device, rollouts_before, shuffled
from reasonloop.stages.evaluate import show_held_out


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
) -> Path:
    """RL from the policy `start` until `rollouts` rollouts are sampled; every one of them goes to the store.

    `continued`: a finished exploration that this one goes on from (its steps count as this one's first steps).
    `seam`: where to leave the state before a last step that `rollouts` cut short, for a longer exploration to continue.
    `learn=False` samples without learning. Returns the folder of the policy that came out.
    """
    options, stage = run.recipe.rl, f"{branch}-explore-{iteration}"
    own = checkpoint(run, stage)
    cursor = own.cursor()
    if cursor is not None and cursor.get("done"):
        return own.folder
    source = own if cursor is not None else continued
    if cursor is None:
        cursor = {"step": 0, "groups": 0, "rollouts": 0, "done": False}
        if continued is not None:
            cursor = {**(continued.cursor() or {}), "done": False}
            cursor["continued_at"] = cursor["step"]
    run.unlog(stage="explore", branch=branch, iteration=iteration, from_step=cursor["step"])
    run.unlog(stage="probe", branch=branch, iteration=iteration, from_step=cursor["step"] or -1)

    policy = Policy.load(source.folder if source else start, device(run))
    learner = Learner(policy, run.recipe.optimizer, run.recipe.sampling, run.recipe.model.gradient_checkpointing)
    if source:
        learner.load(source.folder)
    reference = Policy.load(start, device(run)) if options.kl_coef else None
    engine = NativeEngine()
    engine.load(policy)
    prompts = [Prompt(p.id, policy.encode_prompt(p)) for p in run.problems["train"]]
    objective = objective_of(options)
    planned = max(1, rollouts // options.rollouts_per_step)
    saved_at = time.monotonic()
    if run.recipe.rloop.adaptive and "best_probe" not in cursor:
        cursor = _probe(run, policy, cursor, branch, iteration)  # what is lost counts from the start
    while cursor["rollouts"] < rollouts and not cursor.get("ended_early"):
        began = time.monotonic()
        address = Address(run.recipe.seed, "rl", branch, iteration, cursor["step"])
        before = cursor
        groups, cursor, cut = _sample_step(run, engine, prompts, address, cursor, rollouts, reference)
        if cut and seam is not None:
            seam.save(learner, {**before, "continued_at": before["step"]})
        spent = [rollout for group in groups for rollout in group]
        run.store.write(spent, branch=branch, iteration=iteration, step=cursor["step"])
        useful = useful_groups(groups)[: options.problems_per_step]
        sampled = time.monotonic()
        measured: dict[str, float] = {}
        if useful and learn:
            rate = scheduled(options.learning_rate, options.schedule, cursor["step"], planned, options.warmup_steps)
            measured = _learn_step(run, learner, useful, objective, rate, reference)
        cursor = {**cursor, "step": cursor["step"] + 1}
        counts = {"groups_used": len(useful), "groups_sampled": len(groups), "skipped_updates": learner.skipped}
        run.progress.advance(len(spent) * (RL_ROLLOUT if learn else 1))
        _report_step(run, spent, cursor, began, sampled, planned, branch, iteration, measured | counts)
        if options.probe_every and cursor["step"] % options.probe_every == 0:
            cursor = _probe(run, policy, cursor, branch, iteration)
        over = cursor["rollouts"] >= rollouts or cursor.get("ended_early", False)
        if over:
            run.progress.skip(max(0, rollouts - cursor["rollouts"]) * RL_ROLLOUT)
        if over or run.stopping or time.monotonic() - saved_at >= run.recipe.checkpoint_seconds:
            own.save(learner, {**cursor, "done": over})
            run.set_state(stage, iteration, cursor["step"])
            saved_at = time.monotonic()
            run.stop_point()
    if not own.done:  # what it continued had spent all the rollouts
        own.save(learner, {**cursor, "done": True})
    return own.folder


def objective_of(options: Rl) -> Objective:
    """The named objective with the recipe's own clip range, where it sets one."""
    named = OBJECTIVES[options.objective]
    return replace(
        named,
        clip_low=options.clip_low or named.clip_low,  # a clip of 0 is refused, so that unset is the only other case
        clip_high=options.clip_high or named.clip_high,
    )


def _sample_step(
    run: Run,
    engine: NativeEngine,
    prompts: Sequence[Prompt],
    address: Address,
    cursor: dict[str, Any],
    budget: int,
    reference: Policy | None,
) -> tuple[list[list[Rollout]], dict[str, Any], bool]:
    """A step's groups, judged and rewarded: a batch, and refills for groups without a gradient (dynamic sampling).

    Returns the groups, the cursor behind them, and whether the budget left some out.
    """
    options, cut = run.recipe.rl, False
    groups: list[list[Rollout]] = []
    taken: set[int] = set()
    for _ in range(1 + options.refill_rounds):
        wanted = options.problems_per_step - len(useful_groups(groups))
        affordable = math.ceil((budget - cursor["rollouts"]) / options.group_size)
        cut = cut or wanted > affordable
        picked: list[int] = []
        position = cursor["groups"]
        while len(picked) < min(wanted, affordable) and len(taken) < len(prompts):
            index = shuffled(position, len(prompts), run.recipe.seed, address.iteration)
            position += 1
            if index not in taken:  # a problem is in a step once, at the seam of two passes too
                taken.add(index)
                picked.append(index)
        if not picked:
            break
        cursor = {**cursor, "groups": position, "rollouts": cursor["rollouts"] + len(picked) * options.group_size}
        fresh = engine.sample([prompts[i] for i in picked], options.group_size, run.recipe.sampling, address)
        fresh = judged(run, [run.problems["train"][i] for i in picked for _ in range(options.group_size)], fresh)
        fresh = [outcome_reward(r, run.recipe.sampling.max_tokens, options.overlong_buffer) for r in fresh]
        if reference is not None and options.kl_in == "reward":
            fresh = with_kl_penalty(fresh, _score(reference, fresh, run), options.kl_coef)
        groups += [fresh[i : i + options.group_size] for i in range(0, len(fresh), options.group_size)]
    return groups, cursor, cut


def judged(run: Run, problems: Sequence[Problem], rollouts: Sequence[Rollout]) -> list[Rollout]:
    """The rollouts with their verdicts; `problems` are those of the rollouts, one for one."""
    verdicts = run.verifier.verify([(p, rollout.text) for p, rollout in zip(problems, rollouts, strict=True)])
    return [replace(r, verdict=j.verdict, detail=j.detail) for r, j in zip(rollouts, verdicts, strict=True)]


def _score(policy: Policy, rollouts: Sequence[Rollout], run: Run) -> list[np.ndarray]:
    return policy.score([r.prompt_tokens for r in rollouts], [r.response_tokens for r in rollouts], run.recipe.sampling)


def _learn_step(
    run: Run,
    learner: Learner,
    groups: Sequence[Sequence[Rollout]],
    objective: Objective,
    rate: float,
    reference: Policy | None,
) -> dict[str, float]:
    """The step's updates, each on its own share of the groups, with ratios to the stored behaviour log-probs."""
    options, results = run.recipe.rl, []
    for part in np.array_split(np.arange(len(groups)), min(options.updates_per_step, len(groups))):
        share = [groups[i] for i in part]
        examples = reinforced(share, objective, run.recipe.sampling.max_tokens)
        if reference is not None and options.kl_in == "loss":
            flat = [rollout for group in share for rollout in group]
            examples = with_reference(examples, _score(reference, flat, run), options.kl_coef)
        results.append(learner.update(examples, rate, objective))
    total = sum(result["tokens"] for result in results)
    means = {
        name: sum(result[name] * result["tokens"] for result in results) / total
        for name in ("entropy", "clip_fraction", "kl", "k1")
    }
    means["grad_norm"] = float(np.mean([result["grad_norm"] for result in results]))
    return means | {"learning_rate": rate}


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
        "vanilla RL" if branch == "vanilla" or method == "rl" else "explore",
        min(cursor["step"], planned),
        planned,
        iteration=iteration if method == "rloop" and branch == "main" else None,
        reward=line["reward"],
        tokens_per_second=line["tokens_per_second"],
    )


def _rollout_metrics(rollouts: Sequence[Rollout]) -> dict[str, Any]:
    return {
        "reward": float(np.mean([r.reward for r in rollouts])),
        "right": float(np.mean([r.right for r in rollouts])),
        "length": float(np.mean([len(r.response_tokens) for r in rollouts])),
        "cut_off": float(np.mean([r.finish == "length" for r in rollouts])),
        "verdicts": dict(sorted(Counter(str(r.verdict) for r in rollouts).items())),
    }


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
    solved = [int(problem["correct"] > 0) for problem in result["problems"]]
    best = cursor.get("best_probe")
    if best is None or sum(solved) > sum(best):
        return {**cursor, "best_probe": solved}
    if run.recipe.rloop.adaptive and run.recipe.method == "rloop" and significantly_below(solved, best):
        return {**cursor, "ended_early": True}
    return cursor
