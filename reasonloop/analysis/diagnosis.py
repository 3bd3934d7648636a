"""What went wrong in a run, if something did: rules over its numbers, each with its evidence, the reason, and what to try.

A rule speaks where a run could have learnt nothing, or has lost what it had. The thresholds lie well outside of what the
recipes of this repository do; they say where to look, and are no proof.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from reasonloop.analysis.stability import SPIKE, explorations, stability
from reasonloop.runs.stages import FEW_EXAMPLES

Line = Mapping[str, Any]
"""Of metrics.jsonl"""

CUT_OFF = 0.95
"""Share of an arm's rollouts: above it hardly any response comes to an answer"""
USED = 0.1
"""Share of an arm's groups whose responses were of unequal worth: below it hardly anything is learnt from"""
ENTROPY = 0.05
"""Share of the entropy at the start, over a stretch of steps: below it all samples are about the same"""
LOST = 0.5
"""Share of the best stretch's right rollouts: a last stretch below it has lost what was there ..."""
SURE = 4.0
"""... if the difference is so many standard errors: the best of several stretches is somewhat lucky"""
LEAST_RIGHT = 10
"""Right rollouts in an exploration's first half: none in its second one is then no accident"""
SPIKES = 0.05
"""Share of an arm's steps that are spikes of the gradient norm, and at least LEAST_SPIKES of them"""
LEAST_SPIKES = 3
FAILED = 0.05
"""Share of the rollouts on which the verifier timed out or crashed"""
STRETCH = 10
"""Steps; of a shorter exploration a quarter"""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule has found."""

    name: str
    title: str
    evidence: tuple[str, ...]
    """Numbers, a sentence for each arm or iteration"""
    why: str
    tries: tuple[str, ...]
    """What to do, the most promising first"""


@dataclass(frozen=True)
class Evidence:
    """What the rules look at."""

    arms: Mapping[str, Sequence[Line]]
    """RL steps in order, by the arm's name for a reader; steps that were done once for two arms are in both"""
    selections: Sequence[Line] = ()
    """The lines of stage "select": how many experts an iteration had"""
    evaluations: Sequence[Line] = ()
    """Evaluation files with their problems' counts"""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The recipe's, by dotted key"""

    def option(self, key: str) -> str:
        """ "sampling.max_tokens (34)", or the key alone where its value isn't known."""
        return f"{key} ({self.options[key]})" if key in self.options else key

    @cached_property
    def verdicts(self) -> Counter[str]:
        """Of all training rollouts; of evaluations where there was no training by RL."""
        once = {id(line): line for lines in self.arms.values() for line in lines}
        return _verdicts(once.values() if once else self.evaluations)


def diagnose(run: Evidence) -> list[Finding]:
    """The findings, gravest first; what another one explains is left out."""
    found = [finding for rule in RULES if (finding := rule(run)) is not None]
    explained = {name for finding in found for name in EXPLAINS.get(finding.name, ())}
    return [finding for finding in found if finding.name not in explained]


def nothing_right(run: Evidence) -> Finding | None:
    """No training rollout was right: groups are equal, there is no expert, nothing is learnt."""
    total = run.verdicts.total()
    if not total or run.verdicts["right"]:
        return None
    what = "training rollouts" if any(run.arms.values()) else "samples of the evaluations"
    counts = ", ".join(f"{count:,} {verdict}" for verdict, count in run.verdicts.most_common())
    evidence = [f"0 of {total:,} {what} were right: {counts}."]
    if any(run.arms.values()) and run.evaluations:
        right, samples = (sum(p[key] for e in run.evaluations for p in e["problems"]) for key in ("correct", "n"))
        evidence.append(f"{right:,} of {samples:,} samples of the evaluations were right.")
    verdict, count = run.verdicts.most_common(1)[0]
    shares = [float(line.get("cut_off") or 0) for lines in run.arms.values() for line in lines]
    cut = sum(shares) / len(shares) if shares else 0.0
    if cut > CUT_OFF:
        why = f"{_percent(cut)} of the responses were cut off before they had an answer: they had too few tokens."
        tries = [f"{run.option('sampling.max_tokens')}: more room", *_FORMAT]
    elif verdict == "unparseable":
        why = f"In {_share(count, total)} the verifier found no answer: the model doesn't write it where it is looked for."
        tries = _FORMAT
    elif verdict == "wrong":
        why = f"An answer was found, and {_share(count, total)} were wrong: problems too hard, or gold answers that are odd."
        tries = _HARD
    else:
        why = "The verifier itself failed: see what it says below."
        tries = [_CHECK, f"{run.option('task.verify_deadline')} seconds: more time for it"]
    why += " Where all responses to a problem are worth the same, RL has no gradient; with none right there are no experts."
    return Finding(
        "nothing-right", "Nothing was ever right, so nothing was learned", tuple(evidence), why, tuple(tries)
    )


_CHECK = "`reasonloop tasks check`: whether the gold answers themselves verify as right"
_FORMAT = [
    "read the samples: is there an answer, and where? The task's `extract` says where the verifier looks",
    "say in the prompt how to end (\\boxed{...}, or as the verifier wants it); for a chat model use `messages`",
    "`sft.before = true` with demonstrations, so that the model knows the form; or a reward for it under [rewards]",
]
_HARD = [
    _CHECK,
    "easier problems first, or a stronger model: some of a group's responses must be right",
    "`sft.before = true` with demonstrations; a larger rl.group_size finds rarer successes",
]


def lost(run: Evidence) -> Finding | None:
    """The share of right rollouts has fallen far below what it was within an exploration, or to nothing."""
    evidence = []
    for arm, own in _explorations(run):
        known = [line for line in own if _verdicts([line]).total()]
        size, half = _stretch(known), len(known) // 2
        before, after = _verdicts(known[:half]), _verdicts(known[half:])
        if before["right"] >= LEAST_RIGHT and not after["right"]:
            evidence.append(
                f"{arm}: {before['right']:,} of the first {before.total():,} rollouts were right, none of the last "
                f"{after.total():,}."
            )
            continue
        stretches = [known[i : i + size] for i in range(len(known) - size + 1)]
        if len(stretches) < 2:
            continue
        high, error_high = max(map(_right_share, stretches))
        low, error_low = _right_share(stretches[-1])
        if low < LOST * high and high - low > SURE * math.hypot(error_high, error_low):
            evidence.append(
                f"{arm}: {_percent(high)} of the rollouts were right at its best, {_percent(low)} at the end."
            )
    if not evidence:
        return None
    why = (
        "Updates were too large, or what the reward pays is no longer the answer: the policy has lost what it could do."
    )
    tries = (
        f"{run.option('rl.learning_rate')}: a third of it, or less",
        "rl.kl_coef = 0.01 holds the policy to where it began; a smaller rl.clip_high makes updates smaller",
        "rl.keep_best = true with rl.probe_every keeps the policy from before the fall",
    )
    return Finding("lost", "The policy broke on the way", tuple(evidence), why, tries)


def cut_off(run: Evidence) -> Finding | None:
    """Nearly every response ends at max_tokens."""
    evidence = []
    for arm, lines in run.arms.items():
        shares = [float(line["cut_off"]) for line in lines if line.get("cut_off") is not None]
        if shares and sum(shares) / len(shares) > CUT_OFF:
            evidence.append(f"{arm}: {_percent(sum(shares) / len(shares))} of the rollouts ended at the limit.")
    if not evidence:
        return None
    why = (
        f"A response that is cut off has no answer, as a rule. The limit is {run.option('sampling.max_tokens')} tokens."
    )
    tries = (
        "raise sampling.max_tokens; look at the samples: are they on the way to an answer, or in a loop?",
        "a loop: a lower sampling.temperature, or SFT first; no end: does the prompt say how to end?",
        "rl.overlong_buffer makes the last tokens before the limit cost something",
    )
    return Finding("cut-off", "Nearly every response was cut off", tuple(evidence), why, tries)


def groups_equal(run: Evidence) -> Finding | None:
    """Nearly all groups have responses of one worth: no advantage, no gradient."""
    evidence, right = [], []
    for arm, lines in run.arms.items():
        known = [line for line in lines if line.get("groups_sampled")]
        sampled = sum(line["groups_sampled"] for line in known)
        used = sum(line.get("groups_used") or 0 for line in known)
        if known and used < USED * sampled:
            idle = sum(not line.get("groups_used") for line in known)
            without = f"; {idle:,} of {len(known):,} steps had none, and no update" if idle else ""
            evidence.append(f"{arm}: {used:,} of {sampled:,} groups had responses of unequal worth{without}.")
            counts = _verdicts(known)
            right.append(counts["right"] / max(1, counts.total()))
    if not evidence:
        return None
    share = sum(right) / len(right)
    if share > 0.8:
        why, tries = f"{_percent(share)} of the rollouts were right: the problems are too easy.", _EASY
    elif share < 0.05:
        why, tries = f"Only {_percent(share)} of the rollouts were right: the problems are too hard.", _HARD
    else:
        why, tries = f"{_percent(share)} were right, in whole groups: a problem's samples are about the same.", _SAME
    why += " Where all responses to a problem are worth the same, there is no advantage and no gradient."
    return Finding("groups-equal", "Hardly anything to learn from", tuple(evidence), why, tuple(tries))


_EASY = ["harder problems; rl.skip_solved = true leaves out those that the policy solves already"]
_SAME = [
    "sampling.temperature = 1: a colder policy says the same each time",
    "a larger rl.group_size; rl.refill_rounds samples further problems in place of equal groups",
    "a score between 0 and 1 from the verifier, or a second reward under [rewards], tells equal groups apart",
]


def entropy_gone(run: Evidence) -> Finding | None:
    """All samples have become about the same: exploration is over."""
    evidence = []
    for arm, own in _explorations(run):
        values = [float(line["entropy"]) for line in own if line.get("entropy") is not None]
        size = _stretch(values)
        if len(values) < 2 * size:
            continue
        first, last = sum(values[:size]) / size, sum(values[-size:]) / size
        if last < ENTROPY * first:
            evidence.append(
                f"{arm}: {first:.3g} nats a token in the first {size} steps, {last:.2g} in the last {size}."
            )
    if not evidence:
        return None
    why = "A policy without entropy gives one answer to each problem: RL finds nothing new, and pass@k falls to pass@1."
    tries = (
        f"{run.option('rl.learning_rate')}: lower, or fewer steps",
        "a higher rl.clip_high lets unlikely tokens grow; rl.kl_coef holds on to the start",
        "RLoop drops the RL weights after each iteration",
    )
    return Finding("entropy-gone", "The policy has stopped exploring", tuple(evidence), why, tries)


def few_experts(run: Evidence) -> Finding | None:
    """An iteration's fine-tuning had next to nothing to train on."""
    evidence = []
    for line in run.selections:
        trained_on = line.get("trained_on", line.get("selected"))
        if trained_on is not None and trained_on < FEW_EXAMPLES:
            of = f"{line['right']:,} right rollouts" if line.get("right") is not None else "its rollouts"
            kept = "; the policy stayed as it was" if not trained_on else ""
            number = int(line.get("iteration") or 0) + 1
            evidence.append(f"Iteration {number}: {trained_on:,} expert{'s' * (trained_on != 1)} of {of}{kept}.")
    if not evidence:
        return None
    why = f"Fine-tuning on fewer than {FEW_EXAMPLES} responses learns those by heart, or nothing."
    tries = (
        f"{run.option('rloop.hard_threshold')}: higher lets easier problems through (1: all)",
        "more rl.steps or rl.problems_per_step in an iteration, so that more is found",
        f"{run.option('rloop.cap')}: more responses a problem",
    )
    return Finding("few-experts", "Fine-tuning had too few experts", tuple(evidence), why, tries)


def gradient(run: Evidence) -> Finding | None:
    """The gradient norm spikes again and again, or isn't finite."""
    evidence = []
    for arm, lines in run.arms.items():
        s = stability(lines)
        if len(s.spikes) >= max(LEAST_SPIKES, SPIKES * len(lines)) or s.skipped_updates:
            skipped = f", {s.skipped_updates:,} skipped (not finite)" if s.skipped_updates else ""
            evidence.append(
                f"{arm}: {len(s.spikes):,} of {len(lines):,} steps above {SPIKE:g} running medians{skipped}."
            )
    if not evidence:
        return None
    why = "Spikes of the gradient norm may announce a collapse; an update that isn't finite is left out."
    tries = (
        f"{run.option('rl.learning_rate')}: lower; rl.warmup_steps: more",
        f"{run.option('optimizer.grad_clip')}: smaller",
        "model.dtype = 'float32'",
    )
    return Finding("gradient", "The gradient spiked", tuple(evidence), why, tries)


def verifier_failed(run: Evidence) -> Finding | None:
    """Timeouts and crashes, each of which counts as not right."""
    total = run.verdicts.total()
    failed = {verdict: run.verdicts[verdict] for verdict in ("timeout", "crashed") if run.verdicts[verdict]}
    if not total or sum(failed.values()) < FAILED * total:
        return None
    told = ", ".join(f"{count:,} {verdict}" for verdict, count in failed.items())
    why = "A response on which the verifier fails earns nothing, right or not."
    tries = (_CHECK, f"{run.option('task.verify_deadline')} seconds: more time", "filter the rollouts below by verdict")
    return Finding("verifier", "The verifier failed", (f"Of {total:,} rollouts: {told}.",), why, tries)


RULES: tuple[Callable[[Evidence], Finding | None], ...] = (
    nothing_right,
    lost,
    cut_off,
    groups_equal,
    entropy_gone,
    few_experts,
    verifier_failed,
    gradient,
)
EXPLAINS = {
    "nothing-right": ("cut-off", "groups-equal", "few-experts", "verifier"),
    "lost": ("cut-off", "groups-equal", "entropy-gone", "gradient"),
    "groups-equal": ("entropy-gone",),
}


def _explorations(run: Evidence) -> Iterator[tuple[str, list[Line]]]:
    """Each arm's explorations by themselves, since the policy is set back between them, with a name for each."""
    for arm, lines in run.arms.items():
        own = explorations(lines)
        for steps in own:
            number, branch = (
                int(steps[0].get("iteration") or 0) + 1,
                str(steps[0].get("branch") or "").partition(".")[2],
            )
            which = f"{arm}, iteration {number}" + (f", branch {branch}" if branch else "")
            yield (arm if len(own) == 1 else which), steps


def _right_share(lines: Sequence[Line]) -> tuple[float, float]:
    """The share of right rollouts, and its standard error: two responses to a problem count as one, since they are alike."""
    counts = _verdicts(lines)
    share = counts["right"] / counts.total()
    groups = sum(int(line.get("groups_sampled") or 0) for line in lines)
    return share, math.sqrt(share * (1 - share) / max(1.0, min(counts.total(), 2.0 * groups or counts.total())))


def _percent(value: float) -> str:
    """ "98 %", and with a digit more below 10 %."""
    return f"{100 * value:.{0 if value >= 0.1 else 1}f} %"


def _stretch(values: Sequence[Any]) -> int:
    return min(STRETCH, max(1, len(values) // 4))


def _verdicts(lines: Any) -> Counter[str]:
    total: Counter[str] = Counter()
    for line in lines:
        counts = line.get("verdicts")
        if isinstance(counts, Mapping):
            total.update({str(name): int(count) for name, count in counts.items()})
    return total


def _share(count: int, total: int) -> str:
    return "all of them" if count == total else f"{_percent(count / total)} of them"
