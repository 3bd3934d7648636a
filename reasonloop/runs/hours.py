"""About how long a run will take on a device: its plan's operations and bytes over what the device is expected to reach.

An estimate from data sheets and stated shares, for deciding whether to start; nothing of it is measured. Free of torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from reasonloop.machine.devices import CORE, Device
from reasonloop.runs import clock
from reasonloop.runs.clock import Parts, Rates, Step
from reasonloop.runs.dry import Asked
from reasonloop.runs.needs import FLOAT32, STATE_BYTES, Plan

OF_FLOPS, OF_BANDWIDTH = 0.15, 0.3
"""What of a GPU's peaks training and decoding are taken to reach. prime-rl's committed runs of a 0.6B model on an H100 have
11 % (RL) and 24 % (SFT) of the peak"""
LEAST_STEP = 2e-3
"""Seconds of a decoding step on a GPU, however small the model"""
LENGTH = 0.5
"""How long responses are, of `sampling.max_tokens`"""
SENT = 6.7e9
"""Bytes/s of weights to an engine of its own: 0.18 s for the 1.2 GB of Qwen3-0.6B on an H100 (huggingface/trl #5892)"""
DISK = 2e9
"""Bytes/s that a machine's disk is taken to write checkpoints with"""


@dataclass(frozen=True)
class Guess:
    """What isn't known before a run."""

    mean: float
    """Tokens of a response"""
    taught: float = 1.0
    """Share of the responses that are in groups with unequal rewards, and so reach an update"""
    reach: float = 1.0
    """How much of OF_FLOPS and OF_BANDWIDTH a GPU reaches"""


def rates_of(plan: Plan, device: Device, guess: Guess, cores: int = 1) -> Rates:
    """Of a device, or of a CPU's cores, as one of `plan.ranks`."""
    cost, shape, recipe = plan.shape.cost, plan.shape, plan.recipe
    cpu = device is CORE
    flops = device.flops * (cores if cpu else guess.reach * OF_FLOPS)
    bandwidth = device.bandwidth * (cores if cpu else guess.reach * OF_BANDWIDTH)
    context = plan.prompt + guess.mean / 2
    read = context * cost.keys * plan.element / bandwidth
    computed = cost.decoding_flops(1, context) / flops

    def trained(stage: str, group: int) -> float:
        """Seconds a response's token. An adapter's weights alone have gradients: two thirds."""
        stream = guess.mean + plan.prompt / group
        work = cost.training_flops(stream, guess.mean, guess.mean * (plan.prompt + guess.mean / 2))
        work *= 4 / 3 if recipe.model.gradient_checkpointing else 1
        return work * (2 / 3 if plan.adapter(stage) else 1) / flops / guess.mean

    weights = shape.count * plan.element
    sent = weights / SENT if recipe.engine.name == "vllm" and not cpu else 0.0
    gathered, exchanged = _between_ranks(plan, device, guess)
    stepped = plan.trained("explore") * (2 * STATE_BYTES[recipe.optimizer.state] + 3 * FLOAT32)
    return Rates(
        step=max(weights / bandwidth, 0.0 if cpu else LEAST_STEP),
        token=max(read, computed),
        prompt=2.0 * cost.body / flops,
        learned=trained("explore", recipe.rl.group_size),
        tuned=trained("rft", 1),
        load=gathered + sent,
        update=stepped / plan.shares("explore") / bandwidth + exchanged,
        slots=plan.slots,
    )


def _between_ranks(plan: Plan, device: Device, guess: Guess) -> tuple[float, float]:
    """Seconds that ranks take to gather the float32 shards for sampling, and to exchange what an update needs: weights twice
    and gradients once in each micro-batch (FSDP2), or an adapter's gradients. At the link's full speed, and none of it
    behind computing."""
    rl, others = plan.recipe.rl, (plan.ranks - 1) / plan.ranks / device.link if device.link else 0.0
    if plan.adapter("explore"):
        return 0.0, 2 * FLOAT32 * plan.trained("explore") * others
    tokens = guess.taught * rl.rollouts_per_step * (guess.mean + plan.prompt / rl.group_size) / rl.updates_per_step
    passes = -(-tokens // (plan.ranks * plan.recipe.optimizer.microbatch_tokens))
    count = plan.shape.count * others
    return FLOAT32 * count, (2 * plan.element + FLOAT32) * count * passes


def step_of(plan: Plan, guess: Guess) -> Step:
    rl = plan.recipe.rl
    passes = rl.epochs * (2 if rl.objective == "ppo" else 1) + (1 / 3 if rl.kl_coef else 0)
    return Step(
        responses=rl.rollouts_per_step,
        group=rl.group_size,
        prompt=plan.prompt,
        mean=guess.mean,
        most=plan.recipe.sampling.max_tokens,
        taught=guess.taught,
        passes=passes,
        updates=rl.updates_per_step * rl.epochs,
    )


def parts_of(plan: Plan, one: Asked, rates: Rates, guess: Guess) -> Parts:
    """Seconds of a stage, by what takes them."""
    recipe, most = plan.recipe, plan.recipe.sampling.max_tokens
    if one.kind == "evaluate" and one.amount:
        asked = clock.lengths(int(one.amount), guess.mean, most)
        return {"evaluation": clock.sampling(asked, recipe.eval.samples, plan.prompt, rates, plan.ranks)}
    if one.kind == "finetune" and one.learn:
        options = recipe.sft if one.stage == "sft" else recipe.rft
        updates = -(-int(one.amount) // options.batch_size)
        return {one.stage.upper(): clock.tuning(one.amount, guess.mean, updates, rates, plan.ranks)}
    if one.kind != "explore":
        return {}
    work = step_of(plan, guess)
    if not one.learn:
        work = replace(work, passes=0.0, updates=0)
    save = plan.checkpoint(one.stage) / DISK
    return clock.exploration(
        work,
        one.amount / work.responses,
        rates,
        plan.ranks,
        recipe.checkpoint_seconds,
        0.0 if plan.device == "cpu" else save,
    )


def seconds(plan: Plan, stages: Sequence[Asked], rates: Rates, guess: Guess) -> Parts:
    """Of these stages, one after another."""
    return clock.together(*(parts_of(plan, one, rates, guess) for one in stages))


def hours(plan: Plan, device: Device, cores: int = 1) -> float | None:
    """Of the whole run; None for mixtures of experts, whose cost isn't in their shape. `cores`: of a CPU."""
    if plan.shape.mixture:
        return None
    guess = Guess(LENGTH * plan.recipe.sampling.max_tokens)
    return clock.total(seconds(plan, plan.stages, rates_of(plan, device, guess, cores), guess)) / 3600
