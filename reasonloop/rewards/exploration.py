"""The exploration reward of RLSP (arXiv 2502.06773): pay for effort, apart from correctness.

    R(x, y) = alpha * 1[verified] + (1 - alpha) * R_ex(x, y)

The forms of R_ex are pure functions of one group, the responses to one problem in one step. `ExplorationReward` measures the
effort, asks the judge where there is one, and mixes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import replace
from functools import partial
from itertools import islice
from statistics import fmean

import numpy as np

from reasonloop.config.exploration import Exploration
from reasonloop.records import Group, Rollout
from reasonloop.rewards.effort import NGRAM, AnswerEnd, Decode, Effort, effort_of
from reasonloop.rewards.functions import Value, whole
from reasonloop.rewards.judge import Scorer, judge_of, problem_text


def length_reward(effort: int, scale: float, clipped: bool = True) -> float:
    """-C / |y| for `effort` tokens (|y|, at least 1) and C = `scale`: the equation of the paper's section on R_ex.

    Clipped to [-1, 0] unless `clipped` is False. The published code divides by characters / 4 instead and leaves out
    alpha, so that length weighs about four times as much there.
    """
    reward = -scale / max(1, effort)
    return max(-1.0, reward) if clipped else reward


def difficulty_length_reward(effort: int, scale: float, rate: float) -> float:
    """(1 - rate) x the clipped length form, in [-1, 0]: length is worth most where the success rate in [0, 1] is low."""
    return (1.0 - rate) * length_reward(effort, scale)


def novelty_reward(group: Sequence[Set[bytes]]) -> list[Value]:
    """(1 - mean Jaccard similarity to the others) x min(1, own size / mean size of the others), each in [0, 1].

    `group`: each response's n-grams that count as effort (`Effort.grams`). The second factor is there because an answer
    at once, which has nothing in common with anybody, would otherwise be the most novel. Without others there is none.
    """
    others = len(group) - 1
    if others < 1:
        return ["alone"] * len(group)
    similarity = np.zeros((len(group), len(group)))
    for i, one in enumerate(group):
        for j in range(i):
            common = len(one & group[j])
            union = len(one) + len(group[j]) - common
            similarity[i, j] = similarity[j, i] = common / union if union else 1.0
    sizes = np.array([len(grams) for grams in group], dtype=np.float64)
    share = np.minimum(1.0, sizes / np.maximum((sizes.sum() - sizes) / others, 1e-9))
    return np.clip((1.0 - similarity.sum(axis=1) / others) * share, 0.0, 1.0).tolist()


def mixed_reward(outcome: float, exploration: float | None, alpha: float) -> float:
    """alpha x outcome + (1 - alpha) x R_ex; without R_ex its share is left out, and the outcome keeps its weight."""
    return alpha * outcome + (0.0 if exploration is None else (1.0 - alpha) * exploration)


def alpha_at(options: Exploration, step: float, steps: int) -> float:
    """The outcome's weight at RL step `step` (from 0) of `steps`: linear from alpha at the first on to what alpha_end says.

    `step` may lie between two: refills make the steps of an exploration fewer, and what counts is the rollouts spent.
    """
    weights = options.alphas if len(options.alphas) > 1 else 2 * options.alphas
    return float(np.interp(step, np.linspace(0, max(1, steps - 1), len(weights)), weights))


class ExplorationReward:
    """Gives rollouts their exploration reward.

    `decode`: `Codec.decode`. `answer_end`: `effort.answer_end_of(task)`. `judge`: the scorer for form "judge"; unset, what
    the options name (`judge_of`, which may raise InputError).
    """

    def __init__(
        self,
        options: Exploration,
        decode: Decode,
        answer_end: AnswerEnd,
        *,
        seed: int = 0,
        device: str = "cpu",
        judge: Scorer | None = None,
    ) -> None:
        self.options = options
        self._decode, self._answer_end = decode, answer_end
        self._judge = judge_of(options.judge, seed, device) if judge is None and options.form == "judge" else judge

    def reward(self, groups: Sequence[Group], alpha: float) -> tuple[list[Group], dict[str, float]]:
        """The groups with R_ex in reward_parts["exploration"] and reward = alpha x outcome + (1 - alpha) x R_ex + others.

        `groups`: of rollouts with reward_parts["outcome"]; other parts (overlong, kl) are added as they are. Where R_ex is
        missing for one response of a group (the judge failed, or novelty without another response), the whole group goes
        without, so that its responses stay comparable.

        The second value: alpha, effort_tokens (mean), left_out_groups, exploration (mean, where there is one), and for
        the judge judge_failures and judge_failures_KIND.
        """
        if self.options.form == "none":
            return list(groups), {}
        efforts = [
            [effort_of(r, NGRAM, self._decode, partial(self._answer_end, group.problem)) for r in group.rollouts]
            for group in groups
        ]
        found = self._explorations(groups, efforts)
        missing = Counter(value.partition(":")[0] for own in found for value in own if isinstance(value, str))
        values = [whole(own) for own in found]
        rewarded = [
            replace(group, rollouts=tuple(_rewarded(*pair, alpha) for pair in zip(group.rollouts, own, strict=True)))
            for group, own in zip(groups, values, strict=True)
        ]
        known = [value for own in values for value in own if value is not None]
        metrics = {
            "alpha": alpha,
            "effort_tokens": fmean(effort.tokens for own in efforts for effort in own),
            "left_out_groups": float(sum(None in own for own in values)),
        }
        if known:
            metrics["exploration"] = fmean(known)
        if self.options.form == "judge":
            metrics["judge_failures"] = float(missing.total())
            metrics |= {f"judge_failures_{kind}": float(count) for kind, count in sorted(missing.items())}
        return rewarded, metrics

    def _explorations(self, groups: Sequence[Group], efforts: Sequence[Sequence[Effort]]) -> list[list[Value]]:
        form, scale = self.options.form, self.options.length_scale
        if form == "judge":
            return self._judged(groups, efforts)
        if form == "novelty":
            return [novelty_reward([effort.grams for effort in own]) for own in efforts]
        if form == "difficulty_length":
            rated = zip(efforts, _success_rates(groups), strict=True)
            return [[difficulty_length_reward(effort.tokens, scale, rate) for effort in own] for own, rate in rated]
        if self.options.clipped:
            return [[length_reward(effort.tokens, scale) for effort in own] for own in efforts]
        # the paper's |y|: every token
        return [[length_reward(r.length, scale, clipped=False) for r in group.rollouts] for group in groups]

    def _judged(self, groups: Sequence[Group], efforts: Sequence[Sequence[Effort]]) -> list[list[Value]]:
        assert self._judge is not None
        asked = zip(groups, efforts, strict=True)
        pairs = [(problem_text(group.problem), effort.text) for group, own in asked for effort in own]
        scores = self._judge(pairs)
        if len(scores) != len(pairs):
            raise ValueError(f"the judge returned {len(scores)} scores for {len(pairs)} responses")
        left = (score if isinstance(score, str) or 0.0 <= score <= 1.0 else "nonsense" for score in scores)
        return [list(islice(left, len(own))) for own in efforts]


def _rewarded(rollout: Rollout, exploration: float | None, alpha: float) -> Rollout:
    parts = {name: value for name, value in rollout.reward_parts.items() if name != "exploration"}
    reward = mixed_reward(parts["outcome"], exploration, alpha)
    reward += sum(value for name, value in parts.items() if name != "outcome")
    if exploration is not None:
        parts["exploration"] = exploration
    return replace(rollout, reward=reward, reward_parts=parts)


def _success_rates(groups: Sequence[Group]) -> list[float]:
    """Each group's own; in groups of one, whose own would be the outcome itself, that of all the groups together."""
    outcomes = [[rollout.reward_parts["outcome"] for rollout in group.rollouts] for group in groups]
    overall = fmean(outcome for own in outcomes for outcome in own)
    return [fmean(own) if len(own) > 1 else overall for own in outcomes]
