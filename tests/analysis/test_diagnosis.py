"""A diagnosis: what is wrong is named with its numbers and nothing else is, and what it advises to set exists."""

from __future__ import annotations

import re
from typing import Any

import pytest

from reasonloop.analysis.diagnosis import Evidence, Finding, diagnose
from reasonloop.config import Recipe, flat
from reasonloop.runs.stages import FEW_EXAMPLES

OPTIONS = flat(Recipe.model_validate({"method": "rloop"}).model_dump(mode="json"))
GROUPS, SIZE = 16, 8


def step(i: int, right: int = 40, *, iteration: int = 0, **other: Any) -> dict[str, Any]:
    """A healthy RL step of 128 rollouts, but for what is asked for."""
    verdicts = {"right": right, "wrong": GROUPS * SIZE - right}
    line = {"iteration": iteration, "step": i, "right": right / (GROUPS * SIZE), "cut_off": 0.1, "entropy": 0.3}
    line |= {"grad_norm": 0.4, "groups_used": 9, "groups_sampled": GROUPS, "skipped_updates": 0, "verdicts": verdicts}
    return line | other


def found(lines: list[dict[str, Any]], **other: Any) -> list[Finding]:
    return diagnose(Evidence({"RLoop": lines}, options=OPTIONS, **other))


def names(findings: list[Finding]) -> list[str]:
    return [finding.name for finding in findings]


def test_a_healthy_run_has_no_finding() -> None:
    lines = [step(i, 30 + 7 * (i % 5), entropy=0.3 * 0.98**i) for i in range(60)]
    assert found(lines, selections=[{"iteration": 0, "right": 2400, "trained_on": 900}]) == []
    assert found([]) == []


@pytest.mark.parametrize(
    ("verdicts", "cut", "why", "first"),
    [
        ({"unparseable": 120, "wrong": 8}, 0.2, "found no answer", "read the samples"),
        ({"unparseable": 128}, 1.0, "100 % of the responses were cut off", "sampling.max_tokens"),
        ({"wrong": 128}, 0.0, "all of them were wrong", "`reasonloop tasks check`"),
        ({"crashed": 128}, 0.0, "The verifier itself failed", "`reasonloop tasks check`"),
    ],
)
def test_nothing_right_is_told_by_what_there_was_instead(
    verdicts: dict[str, int], cut: float, why: str, first: str
) -> None:
    lines = [step(i, 0, verdicts=verdicts, cut_off=cut, groups_used=0, grad_norm=None) for i in range(3)]
    evaluation = {"problems": [{"correct": 0, "n": 8}] * 4, "verdicts": {"wrong": 32}}
    selections = [{"iteration": 0, "right": 0, "trained_on": 0}]
    (finding,) = found(lines, evaluations=[evaluation], selections=selections)  # the rest follows from it
    assert finding.name == "nothing-right"
    assert finding.evidence[0].startswith("0 of 384 training rollouts were right: ")
    assert all(f"{3 * count:,} {verdict}" in finding.evidence[0] for verdict, count in verdicts.items())
    assert finding.evidence[1] == "0 of 32 samples of the evaluations were right."
    assert why in finding.why
    assert finding.tries[0].startswith(first)


def test_without_rl_the_evaluations_tell_that_nothing_was_right() -> None:
    evaluation = {"problems": [{"correct": 0, "n": 8}], "verdicts": {"unparseable": 8}}
    (finding,) = diagnose(Evidence({}, evaluations=[evaluation]))
    assert finding.evidence == ("0 of 8 samples of the evaluations were right: 8 unparseable.",)
    assert diagnose(Evidence({}, evaluations=[{**evaluation, "verdicts": {"right": 1, "wrong": 7}}])) == []


def test_steps_that_two_arms_share_count_once() -> None:
    shared = [step(i, 0, verdicts={"wrong": 128}) for i in range(2)]
    finding = diagnose(Evidence({"RLoop": shared, "vanilla RL": [*shared, step(2, 0, verdicts={"wrong": 128})]}))[0]
    assert finding.evidence[0].startswith("0 of 384 ")


def test_a_policy_that_lost_what_it_could_do() -> None:
    broken = [step(i, 60 if i < 12 else 8) for i in range(40)]
    (finding,) = found(broken)
    assert (finding.name, finding.evidence) == (
        "lost",
        ("RLoop: 47 % of the rollouts were right at its best, 6.2 % at the end.",),
    )
    gone = [step(i, 20 if i == 0 else 0, cut_off=1.0, groups_used=0) for i in range(24)]
    (finding,) = found(gone)
    assert finding.evidence == ("RLoop: 20 of the first 1,536 rollouts were right, none of the last 1,536.",)
    # few rollouts, whose samples are alike: chance
    assert "lost" not in names(found([step(i, right) for i, right in enumerate((40, 22, 41, 8))]))
    # a new iteration sets the policy back, which is no loss
    assert found([step(i, 90) for i in range(20)] + [step(i, 20, iteration=1) for i in range(20)]) == []


def test_responses_that_have_no_room() -> None:
    assert names(found([step(i, 3, cut_off=0.97) for i in range(5)])) == ["cut-off"]
    assert names(found([step(i, 3, cut_off=0.9) for i in range(5)])) == []


@pytest.mark.parametrize(
    ("right", "why"), [(126, "too easy"), (2, "too hard"), (48, "a problem's samples are about the same")]
)
def test_groups_without_a_difference_teach_nothing(right: int, why: str) -> None:
    lines = [step(i, right, groups_used=1 if i == 3 else 0) for i in range(10)]
    (finding,) = found(lines)
    assert finding.name == "groups-equal"
    assert "1 of 160 groups" in finding.evidence[0]
    assert "9 of 10 steps had none" in finding.evidence[0]
    assert why in finding.why


def test_entropy_that_has_gone() -> None:
    lines = [step(i, entropy=0.4 * 0.9**i) for i in range(50)]
    (finding,) = found(lines)
    assert finding.name == "entropy-gone"
    assert "in the first 10 steps" in finding.evidence[0]
    assert found([step(i, entropy=0.01) for i in range(50)]) == []  # a policy that was sure from the start


def test_too_few_experts_are_named_by_iteration() -> None:
    selections = [
        {"iteration": 0, "right": 111, "trained_on": FEW_EXAMPLES},
        {"iteration": 1, "right": 111, "trained_on": 1},
        {"iteration": 2, "right": 9, "trained_on": 0},
    ]
    (finding,) = found([step(0)], selections=selections)
    assert finding.evidence == (
        "Iteration 2: 1 expert of 111 right rollouts.",
        "Iteration 3: 0 experts of 9 right rollouts; the policy stayed as it was.",
    )


def test_gradients_that_spike_again_and_again_or_are_not_finite() -> None:
    spiking = [step(i, grad_norm=9.0 if i in (10, 20, 30) else 0.4) for i in range(40)]
    assert names(found(spiking)) == ["gradient"]
    assert names(found([*spiking[:25], *(step(i) for i in range(25, 40))])) == []  # two of forty
    assert "1 skipped (not finite)" in found([step(i, skipped_updates=int(i > 3)) for i in range(9)])[0].evidence[0]


def test_a_verifier_that_fails() -> None:
    lines = [step(i, verdicts={"right": 40, "wrong": 70, "timeout": 10, "crashed": 8}) for i in range(3)]
    (finding,) = found(lines)
    assert (finding.name, finding.evidence) == ("verifier", ("Of 384 rollouts: 30 timeout, 24 crashed.",))


def test_what_it_advises_to_set_can_be_set() -> None:
    ill = [
        [step(i, 0, verdicts={verdict: 128}, cut_off=cut) for i in range(3)]
        for verdict, cut in (("unparseable", 0.0), ("unparseable", 1.0), ("wrong", 0.0), ("crashed", 0.0))
    ]
    ill += [[step(i, 60 if i < 12 else 8) for i in range(40)], [step(i, 3, cut_off=1.0) for i in range(3)]]
    ill += [[step(i, right, groups_used=0) for i in range(4)] for right in (126, 2, 48)]
    ill += [[step(i, entropy=0.4 * 0.9**i, skipped_updates=1) for i in range(50)]]
    few = [{"iteration": 0, "right": 3, "trained_on": 0}]
    findings = [finding for lines in ill for finding in found(lines, selections=few)]
    failing = found([step(0, verdicts={"right": 1, "timeout": 9})])
    told = " ".join(text for finding in [*findings, *failing] for text in (finding.why, *finding.tries))
    assert len({finding.name for finding in [*findings, *failing]}) == 8
    sections = {key.partition(".")[0] for key in OPTIONS if "." in key}
    advised = {key for key in re.findall(r"\b(\w+\.\w+)\b", told) if key.partition(".")[0] in sections}
    assert len(advised) > 12
    assert advised - OPTIONS.keys() == set()
