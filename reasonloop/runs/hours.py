"""About how long a run will take on a device: its plan's operations and bytes over what the device is expected to reach.

An estimate from data sheets and two stated shares, for deciding whether to start; nothing of it is measured. Free of torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from reasonloop.machine.devices import CORE, Device
from reasonloop.runs.dry import Asked
from reasonloop.runs.needs import Plan

OF_FLOPS, OF_BANDWIDTH = 0.15, 0.3
"""What of a GPU's peaks training and decoding are taken to reach. prime-rl's committed runs of a 0.6B model on an H100 have
11 % (RL) and 24 % (SFT) of the peak"""
LEAST_STEP = 2e-3
"""Seconds of a decoding step on a GPU, however small the model"""
LENGTH = 0.5
"""How long responses are, of `sampling.max_tokens`"""


@dataclass(frozen=True)
class Speed:
    """What a device reaches."""

    flops: float
    bandwidth: float
    least_step: float = 0.0


def speed_of(device: Device, cores: int = 1) -> Speed:
    if device is CORE:
        return Speed(cores * device.flops, cores * device.bandwidth)
    return Speed(OF_FLOPS * device.flops, OF_BANDWIDTH * device.bandwidth, LEAST_STEP)


def hours(plan: Plan, device: Device, cores: int = 1) -> float | None:
    """Of the whole run; None for mixtures of experts, whose cost isn't in their shape. `cores`: of a CPU."""
    if plan.shape.mixture:
        return None
    speed = speed_of(device, cores)
    return sum(_seconds(plan, one, speed) for one in plan.stages) / 3600


def _seconds(plan: Plan, one: Asked, speed: Speed) -> float:
    length = LENGTH * plan.recipe.sampling.max_tokens
    if one.kind == "evaluate":
        return _sampled(plan, one.amount, length, speed, plan.recipe.eval.samples, plan.slots)
    if one.kind == "finetune" and one.learn:
        return _trained(plan, one, one.amount, length, speed, 1)
    if one.kind != "explore":
        return 0.0
    rl = plan.recipe.rl
    at_once = min(plan.slots, rl.rollouts_per_step)
    seconds = _sampled(plan, one.amount, length, speed, rl.group_size, at_once)
    if one.learn:
        passes = rl.epochs * (2 if rl.objective == "ppo" else 1) + (1 / 3 if rl.kl_coef else 0)
        seconds += _trained(plan, one, passes * one.amount, length, speed, rl.group_size)
    return seconds


def _sampled(plan: Plan, rollouts: float, length: float, speed: Speed, group: int, slots: int) -> float:
    """Decoding, and prompts once a group."""
    cost, context = plan.shape.cost, plan.prompt + length / 2
    steps = rollouts * length / slots
    read = cost.decoding_bytes(slots, context, plan.element) / speed.bandwidth
    step = max(read, cost.decoding_flops(slots, context) / speed.flops, speed.least_step)
    prompts = rollouts / group * plan.prompt * 2.0 * cost.body / speed.flops
    return steps * step + prompts


def _trained(plan: Plan, one: Asked, examples: float, length: float, speed: Speed, group: int) -> float:
    """Forward and backward passes; a group shares its prompt. An adapter's weights alone have gradients: two thirds."""
    stream = length + plan.prompt / group
    flops = plan.shape.cost.training_flops(stream, length, length * (plan.prompt + length / 2))
    if plan.recipe.model.gradient_checkpointing:
        flops *= 4 / 3
    if plan.adapter(one.stage):
        flops *= 2 / 3
    return examples * flops / speed.flops
