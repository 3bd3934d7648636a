"""How long the parts of a run's loop take, by what a device does: a simulator. Free of torch, and of this machine.

In a step the sampler gets the weights, decodes until the last response of the batch has ended while verdicts are made, and
the learner updates. Explorations repeat it, write checkpoints, and may stand side by side on machines that are taken away.
`tests/runs/test_clock.py` holds the parts against `benchmarks/results`.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np

SPREAD = 0.8
"""Sigma of the log-normal that responses' lengths are taken to have, as in `reasonloop.bench.measure.long_tailed`"""
VERDICT = 1 / 40_000
"""Seconds of a verdict, on answers that need no symbolic algebra (benchmarks/results/verify.json)"""
TRIALS = 4000
"""Drawn fates of machines, for the last one of several side by side"""

Parts = dict[str, float]
"""Seconds by what takes them"""


@dataclass(frozen=True)
class Rates:
    """What one device does with one model, in seconds."""

    step: float
    """Of a decoding step, however few responses are in flight: it reads all weights"""
    token: float
    """What each response in flight adds to it"""
    prompt: float
    """A prompt's token"""
    learned: float
    """A response's token in an RL update, with its share of the prompt"""
    tuned: float
    """A response's token in a fine-tuning, with its prompt"""
    load: float = 0.0
    """Until the sampler has an update's weights"""
    update: float = 0.0
    """An update's, beside its tokens: exchange between ranks, the optimizer's step"""
    slots: int = 256
    """Responses in flight at most"""


@dataclass(frozen=True)
class Step:
    """What an RL step does."""

    responses: int
    group: int
    """Responses that share a prompt"""
    prompt: float
    """Tokens of a prompt"""
    mean: float
    """Tokens of a response"""
    most: int
    """`sampling.max_tokens`"""
    taught: float = 1.0
    """Share of the responses that reach an update: those of groups with unequal rewards"""
    passes: float = 1.0
    """Over these"""
    updates: int = 1

    @property
    def sampled(self) -> float:
        """Tokens"""
        return self.responses * self.mean

    @property
    def trained(self) -> float:
        """Tokens, each as often as it is"""
        return self.passes * self.taught * self.sampled


@cache
def lengths(count: int, mean: float, most: int) -> tuple[float, ...]:
    """Lengths of so many responses, in a fixed order that looks drawn: a log-normal's quantiles, cut at `most`. `mean` is
    what they have when they are cut."""
    mean = min(mean, most)
    normal = NormalDist()
    shape = np.exp(SPREAD * np.array([normal.inv_cdf((i + 0.5) / count) for i in range(count)]))
    low, high = 0.0, most / float(shape.min())
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(middle * shape, most).mean() < mean else (low, middle)
    found = np.maximum(1.0, np.minimum(high * shape, most)).tolist()
    random.Random(0).shuffle(found)
    return tuple(found)


def decoding(asked: Sequence[float], rates: Rates) -> float:
    """Seconds until the last of these responses has ended; a slot whose response ends takes the next one."""
    flying: list[float] = sorted(asked[: rates.slots])
    seconds, now = 0.0, 0.0
    waiting = iter(asked[rates.slots :])
    while flying:
        seconds += (flying[0] - now) * (rates.step + rates.token * len(flying))
        now = flying[0]
        following = next(waiting, None)
        if following is None:
            heapq.heappop(flying)
        else:
            heapq.heapreplace(flying, now + following)
    return seconds


def sampling(asked: Sequence[float], group: int, prompt: float, rates: Rates, ranks: int = 1) -> float:
    """Seconds until all ranks have sampled their shares of these responses; prompts once a group."""
    slowest = max(decoding(asked[rank::ranks], rates) for rank in range(ranks))
    return slowest + len(asked) / group * prompt * rates.prompt / ranks


def step(work: Step, rates: Rates, ranks: int = 1) -> Parts:
    """Of one RL step. Verdicts are made while responses are sampled, in one place."""
    sampled = sampling(lengths(work.responses, work.mean, work.most), work.group, work.prompt, rates, ranks)
    return {
        "weights to the sampler": rates.load,
        "sampling": sampled,
        "verdicts, behind sampling": max(0.0, work.responses * VERDICT - sampled),
        "learning": work.trained * rates.learned / ranks + work.updates * rates.update,
    }


def exploration(
    work: Step, steps: float, rates: Rates, ranks: int = 1, every: float = math.inf, save: float = 0
) -> Parts:
    """Of so many steps, a checkpoint of `save` seconds written whenever `every` seconds have passed, and at the end."""
    parts = {name: steps * seconds for name, seconds in step(work, rates, ranks).items()}
    return parts | {"checkpoints": (total(parts) // max(every, 1e-9) + 1) * save}


def tuning(examples: float, mean: float, updates: int, rates: Rates, ranks: int = 1) -> float:
    """Seconds of a fine-tuning on so many examples, each as often as it is trained on."""
    return examples * mean * rates.tuned / ranks + updates * rates.update


def total(parts: Mapping[str, float]) -> float:
    return sum(parts.values())


def together(*parts: Mapping[str, float]) -> Parts:
    """The sums, by what takes them."""
    return {
        name: sum(one.get(name, 0.0) for one in parts) for name in dict.fromkeys(key for one in parts for key in one)
    }


def again(seconds: float, rate: float, new: float = 0.0) -> float:
    """Expected seconds of work that begins anew, `new` seconds later, whenever its machine is taken away, `rate` times a
    second: (e^(rate x seconds) - 1) (1 / rate + new), the mean of a renewal process with lost work."""
    return math.expm1(rate * seconds) * (1 / rate + new) if rate else seconds


def last_of(several: Sequence[float], rate: float, new: float = 0.0) -> float:
    """Expected seconds until the last of several such works side by side has ended: the mean over drawn fates."""
    if not rate:
        return max(several)
    draws, ends = np.random.default_rng(0), np.zeros(TRIALS)
    for seconds in several:
        lost = draws.geometric(math.exp(-rate * seconds), TRIALS) - 1
        each = np.split(draws.random(lost.sum()), np.cumsum(lost)[:-1])
        share = -math.expm1(-rate * seconds)
        times = [float((-np.log1p(-share * one) / rate + new).sum()) for one in each]
        ends = np.maximum(ends, seconds + np.array(times))
    return float(ends.mean())


def since(seconds: float, every: float, rate: float, new: float = 0.0) -> float:
    """Expected seconds of work that goes on from its last checkpoint, of one each `every` seconds."""
    whole, rest = divmod(seconds, every)
    return whole * again(every, rate, new) + again(rest, rate, new)
