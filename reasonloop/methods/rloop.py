"""RLoop (Zeng et al., arXiv 2511.04285).

Explore with RL from a policy, keep every rollout, filter the successes on hard problems into an expert set, fine-tune
the policy that started the iteration on it, drop the RL weights, repeat. The paper leaves open whether the product is
the last RFT or the last RL policy: both are evaluated, and the RFT policy is delivered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from reasonloop.config import Recipe
from reasonloop.errors import InputError
from reasonloop.methods.arms import early, starting_policy, steered, trained, vanilla
from reasonloop.methods.averages import Ended, finish
from reasonloop.methods.method import Method
from reasonloop.methods.outside import check_outside
from reasonloop.methods.rl import adapter, described
from reasonloop.records import Place
from reasonloop.runs.stages import Arm, Budget, Source, Stages

STARTS = {"iteration_start": "the policy that started the iteration", "base": "the base", "explored": "the RL policy"}
BESIDE = Place("vanilla")


def rloop(run: Stages) -> None:
    recipe, options = run.recipe, run.recipe.rloop
    arm, baseline = product_arm(recipe), vanilla(recipe, steps=recipe.rl.steps * options.iterations)
    each = recipe.rl.rollouts  # of one iteration's exploration
    total = each * options.iterations
    base = theta = starting_policy(run)
    i, spent, last = 0, 0, False
    while not last:
        place, tuning = Place(iteration=i), Place(stage="rft", iteration=i)
        shared = i == 0 and shares_first_iteration(recipe)
        budget = Budget(
            until=each if recipe.elsewhere else min(each, total - spent),
            learn=options.experts != "base_policy",
            keep_best=shared and recipe.rl.keep_best,
            shared_with=baseline if shared else None,
        )
        explored = run.explore(theta, place, arm, budget)
        if shared:
            run.share(place, BESIDE)
        spent += explored.rollouts
        # explorations that end early leave their rollouts to further iterations; elsewhere a few more or less don't count
        last = i + 1 >= options.iterations if recipe.elsewhere else spent >= total
        if explored.policy is not None and (recipe.eval.explored or last):
            of = replace(arm, name="explored", label=f"RLoop {i + 1}, explored")
            run.evaluate(explored.policy, f"iteration-{i}-explored", place, of, rollouts=spent)

        start = {"iteration_start": theta, "base": base, "explored": explored.policy}[options.reinitialise_from]
        assert start is not None  # see `check`
        experts = partial(run.experts, place, theta, arm)
        theta = run.finetune(start, tuning, arm, experts, recipe.rft, recipe.rft.epochs_of(i))
        of = arm.named(f"RLoop {i + 1}, after RFT", product=last)
        ended = Ended(theta, f"iteration-{i}-rft", tuning, of, spent)
        if last:
            product = finish(run, base, ended)
        else:
            run.evaluate(theta, ended.name, tuning, of, rollouts=spent)

        # the RL weights go; an iteration without experts hands on what it started from
        finished = [Place(iteration=k) for k in range(i + 1)] + [Place(stage="rft", iteration=k) for k in range(i)]
        run.drop(finished, keep=[theta])
        i += 1
    if options.vanilla:
        beside(run, base, baseline, each, total)
    run.deliver(product)


def beside(run: Stages, base: Source, arm: Arm, each: int, total: int) -> None:
    """The baseline: one long exploration from the same start, with as many rollouts as all iterations had. It is evaluated
    when it has spent as many as an iteration has, twice as many, and so on: where RLoop is."""
    keep_best = run.recipe.rl.keep_best
    for k in range(1, total // each + 1):
        found = run.explore(base, BESIDE, arm, Budget(k * each, planned=total, keep_best=keep_best))
        # what RLoop's first exploration ended with is a policy that this one passes through
        known = "iteration-0-explored" if k == 1 and shares_first_iteration(run.recipe) else ""
        if k * each == total:
            finish(run, base, Ended(found.made_here, "vanilla", BESIDE, arm, found.rollouts, same_as=known))
        else:
            run.evaluate(found.made_here, f"vanilla-{k}", BESIDE, arm, rollouts=found.rollouts, same_as=known)
    if found.best is not None:
        run.evaluate(found.best, "vanilla-early-stopped", BESIDE, early(arm, run.recipe), rollouts=found.rollouts)


def shares_first_iteration(recipe: Recipe) -> bool:
    """Vanilla RL and RLoop's first exploration are the same computation until the iteration ends, unless a schedule (of the
    rate, or of the outcome's weight) looks at the end; so it is done once."""
    options, weight = recipe.rloop, recipe.exploration
    scheduled = recipe.rl.schedule != "constant" or len({*weight.alphas}) > 1
    other = options.experts == "base_policy" or options.problems or options.until_right or recipe.elsewhere
    return options.vanilla and not scheduled and not other


def product_arm(recipe: Recipe) -> Arm:
    outside = [name for name in ("explorer", "finetuner") if getattr(recipe, name).command]
    arm = trained(Arm("main", "RLoop", changed=side_by_side(recipe)), recipe).using("", "rloop", "rft", *outside)
    return steered(arm, recipe) if recipe.rloop.adaptive else arm


def side_by_side(recipe: Recipe) -> dict[str, Any]:
    """What of [scale] its policies depend on."""
    scale = recipe.scale
    found = {"scale.branches": scale.branches, "scale.vary": [list(own) for own in scale.vary]}
    return {key: value for key, value in found.items() if scale.branches > 1 and value}


def check(recipe: Recipe) -> None:
    """What needs the explored policy, where none comes back."""
    options, rl = recipe.rloop, recipe.rl
    needing = {
        'rloop.reinitialise_from = "explored"': options.reinitialise_from == "explored" and not recipe.explorer.model,
        "rloop.adaptive": options.adaptive,
        "rl.skip_solved": rl.skip_solved,
        "rloop.problems": bool(options.problems and recipe.explorer.command),
        "rloop.until_right": bool(options.until_right and recipe.explorer.command),
        "rloop.replay": options.replay,
        "rl.keep_best (without rloop.vanilla)": rl.keep_best and not options.vanilla,
    }
    for key, asked in needing.items():
        if recipe.elsewhere and asked:
            raise InputError(f"{key}: needs an exploration here; expected it unset, or {recipe.elsewhere} unset")
    if options.replay and (why := no_replay(recipe)):
        raise InputError(f"rloop.replay = {options.replay}: {why}")
    if options.problems and rl.skip_solved:
        raise InputError("rloop.problems, rl.skip_solved: each leaves out other problems; expected one of them")
    if 0 < options.problems < rl.problems_per_step:
        raise InputError(
            f"rloop.problems = {options.problems}: a step wants rl.problems_per_step = {rl.problems_per_step}; expected at "
            "least as many"
        )
    if recipe.scale.branches > rl.steps:
        raise InputError(
            f"scale.branches = {recipe.scale.branches}: there are rl.steps = {rl.steps} to divide among them; expected at "
            "most as many"
        )
    varied = [recipe.of_branch(number) for number in range(1, len(recipe.scale.vary) + 1)]
    if options.weighted and any(one.sampling != recipe.sampling for one in varied):
        raise InputError("rloop.weighted: needs one distribution for all rollouts; expected no sampling in scale.vary")
    check_outside(recipe)


def no_replay(recipe: Recipe) -> str:
    """Why a recipe can't have `rloop.replay`; empty where it can."""
    if recipe.rl.objective == "ppo":
        return "rl.objective = 'ppo' has no groups that experts could join"
    if recipe.rl.kl_coef:
        return "rl.kl_coef charges fresh rollouts, and not those that were stored"
    if recipe.exploration.form != "none" or recipe.rewards:
        return "their rewards were given beside other responses; expected the outcome alone (no [exploration], no [rewards])"
    if recipe.rloop.experts == "base_policy":
        return "without RL (rloop.experts = 'base_policy') nothing is learned from groups"
    return ""


def sentence(options: Mapping[str, Any]) -> str:
    where = f"the task {options['task.name']} from the model {options['model.path']}"
    rl = described(options)
    if options["rloop.experts"] == "base_policy":
        each = f"{options['rl.problems_per_step']} problems × {options['rl.group_size']} responses"
        rl = f"sampling the starting policy, without RL: {options['rl.steps']} steps of {each}"
    if options.get("explorer.command"):
        rl = f"{options['rl.steps']} steps by another trainer, whose rollouts are {options['explorer.rollouts']}'s"
    tuned = " by another trainer" if options.get("finetuner.command") else adapter(options, "rft")
    beside = ", with vanilla RL beside it to the same number of rollouts" if options["rloop.vanilla"] else ""
    iterations = f"{options['rloop.iterations']} iteration{'s' * (options['rloop.iterations'] != 1)}"
    return (
        f"RLoop on {where}: {iterations} of exploration ({rl}) and fine-tuning on its experts"
        f"{tuned}, each starting from {STARTS[options['rloop.reinitialise_from']]}{beside}"
    )


METHOD = Method(
    "RLoop",
    rloop,
    keys=("rloop.adaptive", "finetuner.command"),
    check=check,
    sentence=sentence,
    elsewhere=True,
    stages=("explore", "rft"),
)
