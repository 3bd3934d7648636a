"""An engine whose numbers are not the learner's, held to them: weights that did not arrive are found at once."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from reasonloop.config import Sampling
from reasonloop.engine.protocol import Completion, Done, Engine, Request
from reasonloop.errors import RunError
from reasonloop.policy.policy import Policy, Weights

ROUNDING = {torch.float32: 1e-3, torch.bfloat16: 0.25}
"""What `difference` may be by rounding at temperature 1, by what the policy computes in (measured in docs/vllm.md)"""
GPU_FLOAT32 = 0.05
"""The same of float32 on a GPU, where engines may multiply with TF32's 11 bits (not measured yet)"""
TOKENS, EACH, FEWEST = 256, 64, 16
"""Tokens to compare, about so many; of one response; and too few to say anything"""
OUTLIERS = 50
"""One of so many tokens may differ by any amount"""
WITNESS, PLAIN = 32, Sampling(max_tokens=32)
"""Tokens of the response that is asked for again after each load, at most, and how it is sampled"""


@dataclass(frozen=True)
class _Witness:
    """One response to a request of its own, alone in its batch: the same weights give the same bits."""

    policy: Callable[[], Policy | None]
    """Whose weights they were: another one may compute the same weights by other operations"""
    completion: Completion
    learners: np.ndarray
    """What the learner's weights of the same version gave, float32 [T]"""


class CheckedEngine:
    """After each `load`, some of the tokens that are sampled first are scored by the learner's policy.

    Weights that were not sent, or half of them, change almost every token's log-prob; rounding hardly changes them. Raises
    RunError where the difference is more than that. In bfloat16 a small update is less than rounding. So one response is
    asked for again after each load: RunError, too, where it has the bits of the load before, and the learner's have changed.
    """

    exact = False

    def __init__(self, name: str, engine: Engine, tolerance: float = 0.0) -> None:
        """`name`: what the engine is called in a recipe. `tolerance`: nats, in place of what rounding does; 0: that."""
        self.name, self.engine, self.tolerance = name, engine, tolerance
        self.mismatch: float | None = None
        """What was found last, nats"""
        self._unchecked = False
        self._policy: Callable[[], Policy | None] = lambda: None
        self._version = 0
        self._asked: Request | None = None
        """Again after each load"""
        self._witness: _Witness | None = None

    def load(self, weights: Weights) -> None:
        self.engine.load(weights)
        self._unchecked, self._version = weights.policy is not None, weights.version
        if weights.policy is not None:
            self._policy = weakref.ref(weights.policy)

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, on_done: Done | None = None
    ) -> list[Completion]:
        policy = self._policy()
        if not self._unchecked or policy is None or not requests:
            return self.engine.generate(requests, sampling, on_done)
        if self._asked is None:
            self._asked = Request(requests[0].prompt, draw=0, length=min(WITNESS, sampling.max_tokens))
        # before all others: keys and values that were computed in another batch have other bits
        (witness,) = self.engine.generate([self._asked], PLAIN)
        found = self.engine.generate(requests, sampling, on_done)
        self._expect_known(policy, found)
        self._check(policy, requests, found, sampling)
        if not self._unchecked:
            self._check_change(policy, self._asked.prompt, witness)
        return found

    def rest(self) -> None:
        self.engine.rest()

    def close(self) -> None:
        self.engine.close()

    def check(self, sampling: Sampling) -> None:
        """Raises InputError for a distribution that the engine doesn't sample."""
        check = getattr(self.engine, "check", None)
        if check is not None:
            check(sampling)

    def _check(
        self, policy: Policy, requests: Sequence[Request], found: Sequence[Completion], sampling: Sampling
    ) -> None:
        chosen = _spread(found)
        pairs = [(requests[i].prompt, found[i].tokens[:EACH]) for i in chosen]
        if sum(len(tokens) for _, tokens in pairs) < FEWEST:
            return  # the next call has more
        scored = policy.score([prompt for prompt, _ in pairs], [tokens for _, tokens in pairs], sampling)
        engines = [found[i].logprobs[:EACH] for i in chosen]
        self.mismatch = difference(np.concatenate(engines), np.concatenate(scored), greedy=sampling.top_k == 1)
        tolerance = self.tolerance or rounding_of(policy) / sampling.temperature
        self._unchecked = False
        if not self.mismatch <= tolerance:
            raise RunError(
                f"engine {self.name}: its log-probs are not the learner's: {self.mismatch:.2g} nats apart after version "
                f"{self._version} of the weights was loaded, rounding is less than {tolerance:.2g} in "
                f"{str(policy.dtype).removeprefix('torch.')}; the weights did not arrive, or it computes this model "
                "otherwise; what it sampled was not stored (docs/vllm.md says what to do)"
            )

    def _expect_known(self, policy: Policy, found: Sequence[Completion]) -> None:
        """Raises RunError for a token that the tokenizer doesn't have: the learner's distribution is without them."""
        unknown = np.array(policy.codec.unknown)
        said = [token for one in found if len(unknown) for token in one.tokens[np.isin(one.tokens, unknown)].tolist()]
        if said:
            raise RunError(
                f"engine {self.name}: it sampled token {said[0]}, which the model has logits for and the tokenizer doesn't "
                "have; what it sampled was not stored; the same command goes on, and samples others"
            )

    def _check_change(self, policy: Policy, prompt: np.ndarray, now: Completion) -> None:
        known = self._witness
        (learners,) = policy.score([prompt], [now.tokens], PLAIN)
        self._witness = _Witness(weakref.ref(policy), now, learners)
        if known is None or known.policy() is not policy or not np.array_equal(now.tokens, known.completion.tokens):
            return
        changed = np.mean(learners != known.learners)
        if changed > 0.5 and len(now.tokens) >= FEWEST and np.array_equal(now.logprobs, known.completion.logprobs):
            raise RunError(
                f"engine {self.name}: its weights are those of version {known.completion.version} still, after version "
                f"{self._version} was loaded: it gives the same log-probs to the bit, and the learner others; what it "
                "sampled was not stored (docs/vllm.md says what to do)"
            )


def rounding_of(policy: Policy) -> float:
    """What two ways of computing a policy's log-probs may be apart, nats at temperature 1."""
    rounding = ROUNDING.get(policy.dtype, ROUNDING[torch.bfloat16])
    return max(rounding, GPU_FLOAT32) if policy.device.type == "cuda" else rounding


def difference(engines: np.ndarray, learners: np.ndarray, greedy: bool = False) -> float:
    """How far two log-probs of each token are apart, float32 [T] each, nats: the sum of their differences by the sum of the
    tokens' doubts (1 - probability). A token that is certain has no difference to show, so that neither counts.

    The few largest differences are left out: where top-k, top-p or min-p cut the distribution, rounding may keep another set
    of tokens. Greedy: log-probs are 0 but for a token that isn't the learner's most likely one, which has -log(1 + e^gap),
    with the gap between the logits of both; of these the largest counts.
    """
    apart = np.abs(engines.astype(np.float64) - learners)
    if not np.isfinite(apart).all():
        return float("inf")
    kept = np.argsort(apart)[: len(apart) - len(apart) // OUTLIERS]
    if greedy:
        return float(np.log(np.expm1(max(float(apart[kept].max()), np.log(2)))))
    doubt = 1 - np.exp(np.minimum(engines, learners)[kept].astype(np.float64))
    return float(apart[kept].sum() / max(1.0, doubt.sum()))


def _spread(found: Sequence[Completion]) -> list[int]:
    """Responses evenly spread over a call's, until their tokens are enough."""
    chosen: list[int] = []
    tokens = 0
    for i in np.random.default_rng(0).permutation(len(found)).tolist():
        chosen.append(i)
        tokens += min(EACH, len(found[i].tokens))
        if tokens >= TOKENS:
            break
    return sorted(chosen)
