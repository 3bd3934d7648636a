"""What stops a stage whose numbers can't be true: log-probs that are not the sampler's, and what is no number any more."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from reasonloop.config import Sampling
from reasonloop.engine.checked import rounding_of
from reasonloop.errors import Diverged, RunError
from reasonloop.files import ADAPTER
from reasonloop.learner.protocol import Learner, Measured
from reasonloop.policy.finite import overflow
from reasonloop.runs.session import Session

STOP = 0.5
"""Nats a token at temperature 1, with which no run goes on"""
_TRIAL = 8
"""Tokens that weights are tried on before they are saved"""


def check_first_update(run: Session, learner: Learner, measured: Measured, where: str) -> None:
    """Says it where a step's first update, which nothing was learned before, has other log-probs than the sampler had, by
    more than rounding: once a run, and again when it has doubled. Raises RunError where it is `STOP` or more."""
    apart, temperature = measured.get("apart", 0.0), run.recipe.sampling.temperature
    rounding = rounding_of(learner.policy) / temperature
    if apart <= rounding:
        return
    told = (
        f"{where}: sampler and learner are {apart:.2g} nats a token apart before the step's first update, rounding is less "
        f"than {rounding:.2g}: {_cause(run, learner.updates)}"
    )
    if not apart < STOP / min(1.0, temperature):
        raise RunError(f"{told}; its rollouts are stored, {last_good(run)}")
    if apart >= 2 * run.apart:
        run.apart = apart
        run.progress.say(told)


def _cause(run: Session, updates: int) -> str:
    """`updates`: the stage's, with this one."""
    if run.recipe.model.gradient_checkpointing:
        return (
            "probably something random in the model that only model.gradient_checkpointing switches on; expected "
            "model.gradient_checkpointing = false in a new run"
        )
    if updates > 1 and not run.apart:
        return (
            "probably weights so large that rounding shows, on their way to diverging; expected a lower learning rate in a "
            "new run"
        )
    return (
        "probably a layer that computes otherwise token by token than over a whole sequence, which the check on loading "
        "didn't see; what is learned is wrong by so much: please report it with the model's name"
    )


def expect_numbers(measured: Measured) -> None:
    """Raises Diverged where an update had log-probs that are no numbers."""
    if not math.isfinite(measured["logprob"]):
        raise Diverged("the log-probs that it learns from are not finite")


def expect_good(learner: Learner) -> None:
    """Raises Diverged where the weights, or what they give, are no numbers: a checkpoint's that are not to go for them."""
    if found := overflow(learner.policy.model):
        raise Diverged(found)
    tokens = np.arange(_TRIAL, dtype=np.int32) % learner.policy.vocabulary
    (logprobs,) = learner.score([(tokens, tokens[:_TRIAL])], Sampling())
    if not np.isfinite(logprobs).all():
        raise Diverged("the policy's logits are not finite after its last update")


@contextmanager
def diverging(run: Session, where: Callable[[], str], rate: str) -> Iterator[None]:
    """A stage that diverges ends the run, which says where, what is left, and which option to lower (`rate`)."""
    try:
        yield
    except Diverged as error:
        raise RunError(
            f"training has diverged at {where()}: {error.what}; {last_good(run)}; expected a lower {rate}, or a smaller "
            "optimizer.grad_clip, in a new run"
        ) from error


def last_good(run: Session) -> str:
    """Which policy of the run was saved last."""
    there = [one for one in run.folder.checkpoints() if one.whole or (one.folder / ADAPTER).is_dir()]
    if not there:
        return f"no checkpoint was saved yet: the run began with {run.recipe.model.source}"
    last = max(there, key=lambda one: one.folder.stat().st_mtime)
    step = (last.state() or {}).get("step")
    return f"the last good checkpoint is {last.folder}{'' if step is None else f' (step {step})'}"
