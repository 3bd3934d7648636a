"""RLoop (Zeng et al., arXiv 2511.04285).

Explore with RL from a policy, keep every rollout, filter the successes on hard problems into an expert set, fine-tune
the policy that started the iteration on it, drop the RL weights, repeat. The paper leaves open whether the product is
the last RFT or the last RL policy: both are evaluated, and the RFT policy is delivered.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from reasonloop.policy.policy import Policy
from reasonloop.recipes.sft import starting_policy
from reasonloop.records import Rollout
from reasonloop.run.folder import Run
from reasonloop.stages import (
    TRAINED_EXAMPLE,
    Source,
    best_policy,
    checkpoint,
    deliver,
    evaluate,
    expected_experts,
    expert_rollouts,
    explore,
    finetune,
    load_policy,
    rollouts_spent,
    solved_experts,
)
from reasonloop.store.experts import chosen_experts, distinct
from reasonloop.store.weights import expert_weights


def rloop(run: Run) -> None:
    recipe, options = run.recipe, run.recipe.rloop
    budget = recipe.rl.rollouts  # of one iteration's exploration
    total = budget * options.iterations
    base = theta = starting_policy(run)
    i, spent = 0, 0
    while spent < total:  # explorations that end early leave their rollouts to further iterations
        shared = i == 0 and (options.iterations > 1 or options.adaptive) and shares_first_iteration(run)
        explored = explore(
            run,
            theta,
            iteration=i,
            rollouts=min(budget, total - spent),
            seam=checkpoint(run, "vanilla-explore-0") if shared else None,
            learn=options.experts != "base_policy",
            keep_best=i == 0 and recipe.rl.keep_best and shares_first_iteration(run),
        )
        spent = rollouts_spent(run, "main", i)
        if recipe.eval.explored or spent >= total:
            evaluate(run, explored, f"iteration-{i}-explored", stage="explore", iteration=i, rollouts=spent)

        start = {"iteration_start": theta, "base": base, "explored": explored}[options.reinitialise_from]
        theta = exploit(run, start, theta, iteration=i)
        evaluate(run, theta, f"iteration-{i}-rft", stage="rft", iteration=i, rollouts=spent)

        drop_rl_weights(run, i, theta, last=spent >= total)
        i += 1
    if options.vanilla:
        vanilla(run, base, total, beyond=i > 1)
    deliver(run, theta)


def exploit(run: Run, start: Source, theta: Source, *, iteration: int) -> Path | Source:
    """RFT: fine-tunes `start` on the iteration's experts. `theta` is the policy that started the iteration."""
    cursor = checkpoint(run, f"main-rft-{iteration}").cursor()
    epochs = run.recipe.rft.epochs_of(iteration)
    if cursor is not None and cursor["done"]:
        return finetune(run, start, [], run.recipe.rft, epochs=epochs, stage="rft", iteration=iteration)
    options = run.recipe.rloop
    experts = chosen_experts(run.recipe, run.folder, iteration)
    solved = solved_experts(run.recipe, run.folder, iteration)
    earlier = range(iteration) if options.accumulate else ()
    before = [rollout for i in earlier for rollout in expert_rollouts(run.recipe, run.folder, i)]
    rollouts = distinct([*before, *experts.rollouts, *solved])
    if cursor is None:  # else the line is there already, with steps behind it
        run.unlog(stage="select", iteration=iteration)
        run.log(
            stage="select",
            branch="main",
            iteration=iteration,
            step=0,
            rollouts=rollouts_spent(run, "main", iteration),
            seen=experts.seen,
            right=experts.right,
            problems=experts.problems,
            hard_problems=experts.hard_problems,
            deduplicated=experts.deduplicated,
            selected=experts.selected,
            **({"solved": len(solved)} if run.recipe.rl.skip_solved else {}),
            trained_on=len(rollouts),
        )
    run.progress.say(
        f"experts: {experts.seen} rollouts, {experts.right} right; {experts.hard_problems} of {experts.problems} "
        f"problems hard; {experts.deduplicated} distinct successes on them, {experts.selected} after the cap"
        + (f"; {len(solved)} solved greedily" if solved else "")
        + (f"; {len(rollouts)} to train on" if len(rollouts) > experts.selected else "")
    )
    pairs = [(rollout.prompt_tokens, rollout.response_tokens) for rollout in rollouts]
    run.progress.total_units += (len(pairs) - expected_experts(run)) * epochs * TRAINED_EXAMPLE
    weights = importance_weights(run, theta, rollouts) if options.weighted else None
    return finetune(run, start, pairs, run.recipe.rft, epochs=epochs, stage="rft", iteration=iteration, weights=weights)


def importance_weights(run: Run, theta: Source, experts: list[Rollout]) -> list[float]:
    """min(pi_theta/pi_behaviour, c), mean 1 within each problem: one scoring pass of the iteration's first policy."""
    policy = load_policy(run, theta)
    scored = policy.score([r.prompt_tokens for r in experts], [r.response_tokens for r in experts], run.recipe.sampling)
    return expert_weights(
        [float(np.sum(logprobs, dtype=np.float64)) for logprobs in scored],
        [float(np.sum(r.logprobs, dtype=np.float64)) for r in experts],
        [r.problem_id for r in experts],
        run.recipe.rloop.weight_clip,
    ).tolist()


def drop_rl_weights(run: Run, iteration: int, theta: Source, *, last: bool) -> None:
    """RL weights go at the end of their iteration, but for the last one's, and the first one's while vanilla needs it.

    An iteration without experts hands on the policy that it started from, which may be as old as the run: `theta` stays.
    """
    kept = {theta, *([checkpoint(run, f"main-explore-{iteration}").folder] if last else [])}
    if shares_first_iteration(run):
        kept.add(checkpoint(run, "main-explore-0").folder)
    stages = [f"main-explore-{i}" for i in range(iteration + 1)] + [f"main-rft-{i}" for i in range(iteration)]
    for stage in stages:
        if checkpoint(run, stage).folder not in kept:
            checkpoint(run, stage).drop_weights()


def shares_first_iteration(run: Run) -> bool:
    """Vanilla RL and RLoop's first exploration are the same computation until the iteration ends, unless a schedule (of the
    rate, or of the outcome's weight) looks at the end; so it is done once."""
    options, weight = run.recipe.rloop, run.recipe.exploration
    scheduled = run.recipe.rl.schedule != "constant" or weight.last_alpha != weight.alpha
    return options.vanilla and options.experts != "base_policy" and not scheduled


def vanilla(run: Run, base: Source, budget: int, *, beyond: bool) -> None:
    """The baseline: one long exploration from the same start, with as many rollouts as all iterations had. It is evaluated
    when it has spent as many as an iteration has, twice as many, and so on: where RLoop is.

    `beyond`: whether it goes on behind RLoop's first iteration, whose RL weights are then no end product.
    """
    first = checkpoint(run, "main-explore-0")
    continued = first if shares_first_iteration(run) else None
    each = run.recipe.rl.rollouts

    def evaluate_on_its_way(policy: Policy, spent: int) -> None:
        # what RLoop's first exploration ended with is a policy that this one passes through
        known = "iteration-0-explored" if continued is not None and spent == each else ""
        name = f"vanilla-{spent // each}"
        evaluate(run, policy, name, stage="explore", branch="vanilla", rollouts=spent, same_as=known)

    trained = explore(
        run,
        base,
        branch="vanilla",
        rollouts=budget,
        continued=continued,
        keep_best=run.recipe.rl.keep_best,
        milestone=each,
        passing=evaluate_on_its_way,
    )
    spent = rollouts_spent(run, "vanilla", 0)
    evaluate(run, trained, "vanilla", stage="explore", branch="vanilla", rollouts=spent)
    best = best_policy(run, "vanilla")
    if best is not None:
        evaluate(run, best, "vanilla-early-stopped", stage="explore", branch="early", rollouts=spent)
    if beyond:
        first.drop_weights()
