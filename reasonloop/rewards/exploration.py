"""The exploration reward of RLSP (arXiv 2502.06773): pay for effort, apart from correctness.

    R(x, y) = alpha * 1[verified] + (1 - alpha) * R_ex(x, y)

The forms of R_ex are pure functions of one group, the responses to one problem in one step. `Explorer` measures the
effort, asks the judge where there is one, and mixes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace

import numpy as np

from reasonloop.config.exploration import Exploration
from reasonloop.records import Problem, Rollout
from reasonloop.rewards.effort import AnswerEnd, Decode, Effort, effort_of
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


def novelty_reward(group: Sequence[Set[bytes]]) -> list[float] | None:
    """(1 - mean Jaccard similarity to the others) x min(1, own size / mean size of the others), each in [0, 1].

    `group`: each response's n-grams that count as effort (`Effort.grams`). The second factor is there because an answer
    at once, which has nothing in common with anybody, would otherwise be the most novel. None for a group of one.
    """
    if len(group) < 2:
        return None
    similarity = np.zeros((len(group), len(group)))
    for i, one in enumerate(group):
        for j in range(i):
            common = len(one & group[j])
            union = len(one) + len(group[j]) - common
            similarity[i, j] = similarity[j, i] = common / union if union else 1.0
    sizes = np.array([len(grams) for grams in group], dtype=np.float64)
    others = (sizes.sum() - sizes) / (len(group) - 1)
    share = np.where(sizes == 0, 0.0, np.minimum(1.0, sizes / np.maximum(others, 1e-9)))
    novelty = (1.0 - similarity.sum(axis=1) / (len(group) - 1)) * share
    return [min(1.0, max(0.0, value)) for value in novelty.tolist()]


def mixed_reward(outcome: float, exploration: float | None, alpha: float) -> float:
    """alpha x outcome + (1 - alpha) x R_ex; without R_ex its share is left out, and the outcome keeps its weight."""
    return alpha * outcome + (0.0 if exploration is None else (1.0 - alpha) * exploration)


def alpha_at(options: Exploration, step: float, steps: int) -> float:
    """The outcome's weight at RL step `step` (from 0) of `steps`: alpha at the first, alpha_end at the last. `step` may lie
    between two: refills make the steps of an exploration fewer, and what counts is the rollouts spent."""
    start, end = options.alpha, options.last_alpha
    progress = min(1.0, max(0.0, step / max(1, steps - 1)))
    if options.alpha_schedule == "constant" or progress == 0:
        return start
    if progress == 1:
        return end
    fallen = progress if options.alpha_schedule == "linear" else (1.0 - math.cos(math.pi * progress)) / 2.0
    return min(
        max(start, end), max(min(start, end), start + (end - start) * fallen)
    )  # rounding must not leave the range


class Explorer:
    """Gives rollouts their exploration reward.

    `decode`: `Policy.decode`. `answer_end`: `effort.answer_end_of(task)`. `judge`: the scorer for form "judge"; unset, what
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

    def reward(
        self,
        problems: Sequence[Problem],
        groups: Sequence[Sequence[Rollout]],
        alpha: float,
        rates: Sequence[float] | None = None,
    ) -> tuple[list[list[Rollout]], dict[str, float]]:
        """The groups with R_ex in reward_parts["exploration"] and reward = alpha x outcome + (1 - alpha) x R_ex + others.

        `problems`: one a group. `groups`: rollouts with reward_parts["outcome"]; other parts (overlong, kl) are added
        as they are. `rates`: each problem's success rate in [0, 1] for difficulty_length; unset, the group's own, or
        for groups of one, whose own would be the outcome itself, the rate of all the groups together. Where R_ex is
        missing for one response of a group (the judge failed, or novelty without another response), the whole group
        goes without, so that its responses stay comparable.

        The second value: alpha, effort_tokens (mean), left_out_groups, exploration (mean, where there is one), and for
        the judge judge_failures and judge_failures_KIND.
        """
        if self.options.form == "none":
            return [list(group) for group in groups], {}
        efforts = [
            [self._effort(problem, rollout) for rollout in group]
            for problem, group in zip(problems, groups, strict=True)
        ]
        values, failures = self._explorations(problems, groups, efforts, rates)
        values = [None if group is None or any(value is None for value in group) else group for group in values]
        rewarded = [
            [_rewarded(r, None if own is None else own[i], alpha) for i, r in enumerate(group)]
            for group, own in zip(groups, values, strict=True)
        ]
        known = [value for group in values if group is not None for value in group if value is not None]
        metrics = {
            "alpha": alpha,
            "effort_tokens": _mean([effort.tokens for group in efforts for effort in group]),
            "left_out_groups": float(sum(group is None for group in values)),
        }
        if known:
            metrics["exploration"] = _mean(known)
        if self.options.form == "judge":
            metrics["judge_failures"] = float(sum(failures.values()))
            metrics |= {f"judge_failures_{kind}": float(count) for kind, count in sorted(failures.items())}
        return rewarded, metrics

    def _effort(self, problem: Problem, rollout: Rollout) -> Effort:
        return effort_of(
            rollout.prompt_tokens,
            rollout.response_tokens,
            self.options.ngram,
            self._decode,
            lambda text: self._answer_end(problem, text),
        )

    def _explorations(
        self,
        problems: Sequence[Problem],
        groups: Sequence[Sequence[Rollout]],
        efforts: Sequence[Sequence[Effort]],
        rates: Sequence[float] | None,
    ) -> tuple[list[Sequence[float | None] | None], Mapping[str, int]]:
        """R_ex for each response of each group (None: missing), and the judge's failures by kind."""
        options, scale = self.options, self.options.length_scale
        if options.form == "length" and not options.clipped:  # the paper's |y|: every token
            return [[length_reward(len(r.response_tokens), scale, False) for r in group] for group in groups], {}
        if options.form == "length":
            return [[length_reward(effort.tokens, scale) for effort in group] for group in efforts], {}
        if options.form == "difficulty_length":
            rates = _own_rates(groups) if rates is None else rates
            return [
                [difficulty_length_reward(effort.tokens, scale, rate) for effort in group]
                for group, rate in zip(efforts, rates, strict=True)
            ], {}
        if options.form == "novelty":
            return [novelty_reward([effort.grams for effort in group]) for group in efforts], {}
        return self._judged(problems, efforts)

    def _judged(
        self, problems: Sequence[Problem], efforts: Sequence[Sequence[Effort]]
    ) -> tuple[list[Sequence[float | None] | None], Mapping[str, int]]:
        assert self._judge is not None
        pairs = [
            (problem_text(problem), effort.text)
            for problem, group in zip(problems, efforts, strict=True)
            for effort in group
        ]
        scores, failures = self._judge(pairs)
        if len(scores) != len(pairs):
            raise ValueError(f"the judge returned {len(scores)} scores for {len(pairs)} responses")
        valid = [score if score is not None and 0.0 <= score <= 1.0 else None for score in scores]
        strays = sum(score is None for score in valid) - sum(score is None for score in scores)
        left = iter(valid)
        return [[next(left) for _ in group] for group in efforts], Counter(failures) + Counter(nonsense=strays)


def _rewarded(rollout: Rollout, exploration: float | None, alpha: float) -> Rollout:
    parts = {name: value for name, value in rollout.reward_parts.items() if name != "exploration"}
    reward = mixed_reward(parts["outcome"], exploration, alpha)
    reward += sum(value for name, value in parts.items() if name != "outcome")
    if exploration is not None:
        parts["exploration"] = exploration
    return replace(rollout, reward=reward, reward_parts=parts)


def _own_rates(groups: Sequence[Sequence[Rollout]]) -> list[float]:
    outcomes = [[rollout.reward_parts["outcome"] for rollout in group] for group in groups]
    overall = _mean([outcome for group in outcomes for outcome in group])
    return [_mean(group) if len(group) > 1 else overall for group in outcomes]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else 0.0
