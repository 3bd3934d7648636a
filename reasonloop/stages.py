"""The stages that methods are made of: each a function of (recipe, checkpoint, store).

A stage can be killed at any moment: called again it continues from its last checkpoint, and a finished one returns at
once what it made.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from reasonloop.checkpoints import Checkpoint
from reasonloop.config import Recipe, Rl, Training
from reasonloop.errors import InputError
from reasonloop.evaluation.evaluate import evaluate_policy, significantly_below
from reasonloop.learner.batch import reinforced, supervised, useful_groups, with_reference
from reasonloop.learner.learner import Learner, scheduled
from reasonloop.learner.losses import OBJECTIVES, Objective
from reasonloop.policy.policy import Policy
from reasonloop.records import Problem, Rollout
from reasonloop.rewards.outcome import outcome_reward, with_kl_penalty
from reasonloop.rollout.engine import Address, Prompt
from reasonloop.rollout.native import NativeEngine
from reasonloop.runs import Run, write_atomically
from reasonloop.tasks import Task

# planned work in units of one evaluation rollout: training on a rollout costs about as much again, and a bit
RL_ROLLOUT, TRAINED_EXAMPLE = 2.5, 1.5

Source = str | Path


def checkpoint(run: Run, stage: str) -> Checkpoint:
    return Checkpoint(run.folder / "checkpoints" / stage)


def device(run: Run) -> str:
    import torch

    chosen = run.recipe.model.device
    return ("cuda" if torch.cuda.is_available() else "cpu") if chosen == "auto" else chosen


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
    run.unlog(stage="probe", branch=branch, iteration=iteration, from_step=cursor["step"])

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
        tokens = sum(len(rollout.response_tokens) for rollout in spent)
        cursor = {**cursor, "step": cursor["step"] + 1}
        line = {
            "stage": "explore",
            "branch": branch,
            "iteration": iteration,
            "step": cursor["step"] - 1,
            "rollouts": cursor["rollouts"] + _before(run, branch, iteration),
            **_rollout_metrics(spent),
            **measured,
            "groups_used": len(useful),
            "groups_sampled": len(groups),
            "skipped_updates": learner.skipped,
            "seconds": round(time.monotonic() - began, 3),
            "sampling_seconds": round(sampled - began, 3),
            "tokens_per_second": round(tokens / (time.monotonic() - began), 1),
        }
        run.log(**line)
        run.progress.step(
            "vanilla RL" if branch == "vanilla" or run.recipe.method == "rl" else "explore",
            min(cursor["step"], planned),
            planned,
            iteration=iteration if run.recipe.method == "rloop" and branch == "main" else None,
            units=len(spent) * (RL_ROLLOUT if learn else 1),
            reward=line["reward"],
            tokens_per_second=line["tokens_per_second"],
        )
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
        clip_low=options.clip_low if options.clip_low is not None else named.clip_low,
        clip_high=options.clip_high if options.clip_high is not None else named.clip_high,
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
            index = _shuffled(position, len(prompts), run.recipe.seed, address.iteration)
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


def _shuffled(position: int, count: int, seed: int, iteration: int) -> int:
    """The item at a place in the endless order of shuffled passes over `count` items."""
    turn, place = divmod(position, count)
    return int(_pass(turn, count, seed, iteration)[place])


@lru_cache(maxsize=4)
def _pass(turn: int, count: int, seed: int, iteration: int) -> np.ndarray:
    return np.random.default_rng([seed, iteration, turn]).permutation(count)


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
    return {name: value for name, value in means.items() if math.isfinite(value)} | {"learning_rate": rate}


def _rollout_metrics(rollouts: Sequence[Rollout]) -> dict[str, Any]:
    return {
        "reward": float(np.mean([r.reward for r in rollouts])),
        "right": float(np.mean([r.right for r in rollouts])),
        "length": float(np.mean([len(r.response_tokens) for r in rollouts])),
        "cut_off": float(np.mean([r.finish == "length" for r in rollouts])),
        "verdicts": dict(sorted(Counter(str(r.verdict) for r in rollouts).items())),
    }


def _before(run: Run, branch: str, iteration: int) -> int:
    """Rollouts that the arm spent in the iterations before this one."""
    if branch != "main":
        return 0
    cursors = [checkpoint(run, f"{branch}-explore-{i}").cursor() or {} for i in range(iteration)]
    return sum(cursor.get("rollouts", 0) for cursor in cursors)


def rollouts_spent(run: Run, branch: str, iteration: int) -> int:
    """Rollouts that the arm has spent by the end of the iteration's exploration."""
    cursor = checkpoint(run, f"{branch}-explore-{iteration}").cursor() or {}
    return _before(run, branch, iteration) + int(cursor.get("rollouts", 0))


def training_seconds(run: Run, branch: str, iteration: int) -> float:
    """Seconds of sampling and training that the arm has spent by the end of the iteration; evaluations don't count."""
    continued_at = (checkpoint(run, f"{branch}-explore-{iteration}").cursor() or {}).get("continued_at", 0)
    total = 0.0
    for line in run.metrics():
        own = line.get("branch") == branch and line.get("iteration", 0) <= iteration
        shared = (line.get("stage"), line.get("branch"), line.get("iteration")) == ("explore", "main", 0)
        if line.get("stage") in ("sft", "explore", "rft") and (own or (shared and line["step"] < continued_at)):
            total += line.get("seconds", 0.0)
    return total


def _probe(run: Run, policy: Policy, cursor: dict[str, Any], branch: str, iteration: int) -> dict[str, Any]:
    """Evaluates on the probe problems; adaptive exploration ends when pass@k is significantly below its best."""
    result = evaluate_policy(run, policy, "probe", run.recipe.eval.probe_samples)
    metrics = {name: value["value"] for name, value in result["metrics"].items()}
    run.progress.held_out(**{name: value for name, value in metrics.items() if name.startswith("avg@")})
    run.log(
        stage="probe",
        branch=branch,
        iteration=iteration,
        step=cursor["step"] - 1,
        rollouts=cursor["rollouts"] + _before(run, branch, iteration),
        **metrics,
    )
    solved = [int(problem["correct"] > 0) for problem in result["problems"]]
    best = cursor.get("best_probe")
    if best is None or sum(solved) > sum(best):
        return {**cursor, "best_probe": solved}
    if run.recipe.rloop.adaptive and run.recipe.method == "rloop" and significantly_below(solved, best):
        return {**cursor, "ended_early": True}
    return cursor


def finetune(
    run: Run,
    start: Source,
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    options: Training,
    *,
    stage: str,
    iteration: int = 0,
    weights: Sequence[float] | None = None,
) -> Path:
    """Supervised training of `start` on (prompt, response) token pairs, int32 each, loss on response tokens only.

    Returns the folder of the trained policy, or `start` when there are no pairs.
    """
    own = checkpoint(run, f"main-{stage}-{iteration}")
    cursor = own.cursor()
    if cursor is not None and cursor.get("done"):
        return Path(start) if cursor.get("empty") else own.folder
    if not pairs:
        run.progress.say(f"{stage}: no examples; the policy stays as it was")
        own.skip({"done": True, "empty": True})
        return Path(start)
    weights = weights if weights is not None else [1.0] * len(pairs)
    learner = Learner(
        Policy.load(own.folder if cursor else start, device(run)),
        run.recipe.optimizer,
        run.recipe.sampling.model_copy(update={"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}),
        run.recipe.model.gradient_checkpointing,
    )
    if cursor:
        learner.load(own.folder)
    first = cursor["step"] if cursor else 0
    run.unlog(stage=stage, branch="main", iteration=iteration, from_step=first)
    batch = min(options.batch_size, len(pairs))
    total = max(1, round(options.epochs * len(pairs) / batch))
    saved_at = time.monotonic()
    for step in range(first, total):
        began = time.monotonic()
        chosen = [_shuffled(step * batch + i, len(pairs), run.recipe.seed, iteration) for i in range(batch)]
        rate = scheduled(options.learning_rate, options.schedule, step, total, round(options.warmup * total))
        examples = supervised([pairs[i] for i in chosen], [weights[i] for i in chosen])
        measured = learner.update(examples, rate)
        run.log(
            stage=stage,
            branch="main",
            iteration=iteration,
            step=step,
            loss=measured["loss"],
            entropy=measured["entropy"],
            grad_norm=measured["grad_norm"] if math.isfinite(measured["grad_norm"]) else None,
            learning_rate=rate,
            skipped_updates=learner.skipped,
            tokens=int(measured["tokens"]),
            seconds=round(time.monotonic() - began, 3),
        )
        run.progress.step(
            stage,
            step + 1,
            total,
            iteration=iteration if run.recipe.method == "rloop" else None,
            units=batch * TRAINED_EXAMPLE,
            loss=measured["loss"],
        )
        over = step + 1 == total
        if over or run.stopping or time.monotonic() - saved_at >= run.recipe.checkpoint_seconds:
            # a finished fine-tuning hands on its weights; nobody continues its optimizer
            own.save(learner, {"step": step + 1, "done": over}, trainer_state=not over)
            run.set_state(f"main-{stage}-{iteration}", iteration, step + 1)
            saved_at = time.monotonic()
            run.stop_point()
    return own.folder


def demonstrations(
    recipe: Recipe, task: Task, policy: Policy, limit: int | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The task's demonstrations (the first `limit` of them) as token pairs, in a fixed order.

    Raises InputError if there are none, or if one is longer than the model's context.
    """
    from reasonloop.tasks import demonstrations as of_task

    options = recipe.sft
    found = islice(
        of_task(task, options.demonstrations, recipe.seed, **options.options), options.demonstrations or None
    )
    pairs = [
        (policy.encode_prompt(problem), policy.encode_response(response)) for problem, response in islice(found, limit)
    ]
    if not pairs:
        raise InputError(
            f"sft: task {recipe.task.name!r} has no demonstrations; expected training problems with a worked "
            "response, or a task that generates them (then set sft.demonstrations)"
        )
    longest = max(pairs, key=lambda pair: len(pair[0]) + len(pair[1]))
    if len(longest[0]) + len(longest[1]) > policy.context_length:
        raise InputError(
            f"sft: a demonstration has {len(longest[0]) + len(longest[1])} tokens with its prompt, more than the "
            f"model's context of {policy.context_length}"
        )
    return pairs


def evaluate(
    run: Run, source: Source, name: str, *, stage: str, iteration: int = 0, branch: str = "main", rollouts: int = 0
) -> dict[str, Any]:
    """Evaluates the policy in `source` on the test problems; RUN/evals/<name>.json holds what came out."""
    path = run.folder / "evals" / f"{name}.json"
    saved = path.with_suffix(".partial")
    if path.is_file():
        saved.unlink(missing_ok=True)
        return json.loads(path.read_text())
    run.set_state(f"eval {name}", iteration, 0)
    run.stop_point()
    run.progress.say(f"evaluating {name}")
    policy = Policy.load(source, device(run))
    result = {
        "name": name,
        "order": len(list(path.parent.glob("*.json"))),
        "stage": stage,
        "branch": branch,
        "iteration": iteration,
        "rollouts": rollouts,
        "seconds": round(training_seconds(run, branch, iteration), 1),
        "task": run.recipe.task.name,
        "split": "test",
        "sampling": run.recipe.sampling.model_dump(mode="json"),
        **evaluate_policy(run, policy, "test", run.recipe.eval.samples, saved),
    }
    values = {key: value["value"] for key, value in result["metrics"].items()}
    run.progress.held_out(**{key: value for key, value in values.items() if key.startswith("avg@")})
    run.unlog(stage="eval", name=name)
    run.log(stage="eval", branch=branch, iteration=iteration, rollouts=rollouts, name=name, **values)
    write_atomically(path, json.dumps(result) + "\n")
    saved.unlink(missing_ok=True)
    return result


def deliver(run: Run, source: Source) -> None:
    """The product: RUN/model, a Hugging Face folder."""
    if not (run.folder / "model" / "config.json").is_file():
        Policy.load(source).save(run.folder / "model")
    run.set_state("done", 0, 0)
