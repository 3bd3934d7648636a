"""The exploration reward: its forms, its guarantees, and what happens when a part of it is missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from effort_factory import decode, group, problem, rewarded, rollout
from hypothesis import assume, given
from hypothesis import strategies as st

from reasonloop.config.exploration import Exploration
from reasonloop.learner.batch import useful_groups
from reasonloop.records import Group, Problem, Rollout
from reasonloop.rewards.effort import effort_of
from reasonloop.rewards.exploration import (
    ExplorationReward,
    alpha_at,
    difficulty_length_reward,
    length_reward,
    mixed_reward,
    novelty_reward,
)
from reasonloop.rewards.judge import problem_text
from reasonloop.verify.answer_end import default_answer_end

JUDGE = {"base_url": "http://127.0.0.1:9/v1", "model": "m", "api_key_env": ""}
FORMS = ["length", "difficulty_length", "novelty", "judge"]


def explorer(form: str, judge: Any = None, **options: Any) -> ExplorationReward:
    settings = {"alpha": 0.8, "length_scale": 10.0, "judge": JUDGE, **options, "form": form}
    return ExplorationReward(Exploration(**settings), decode, lambda p, text: default_answer_end(text), judge=judge)


def judged_as(scores: Sequence[float | str]) -> Any:
    return lambda pairs: list(scores)


def rewards(groups: Sequence[Sequence[Rollout]]) -> list[float]:
    return [r.reward for own in groups for r in own]


def explorations(groups: Sequence[Sequence[Rollout]]) -> list[float | None]:
    return [r.reward_parts.get("exploration") for own in groups for r in own]


# the forms


@given(effort=st.integers(-3, 10**6), scale=st.floats(1e-3, 1e6))
def test_the_length_form_is_the_equation_and_clipping_only_bounds_it(effort: int, scale: float) -> None:
    printed = length_reward(effort, scale, clipped=False)
    assert printed == -scale / max(1, effort)
    assert length_reward(effort, scale) == max(-1.0, printed)
    assert length_reward(effort + 1, scale) >= length_reward(effort, scale)


@given(effort=st.integers(0, 10**5), rates=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_length_is_worth_more_on_harder_problems(effort: int, rates: tuple[float, float]) -> None:
    easy, hard = max(rates), min(rates)
    gains = [difficulty_length_reward(10**6, 50.0, r) - difficulty_length_reward(effort, 50.0, r) for r in (hard, easy)]
    assert gains[0] >= gains[1] - 1e-12
    assert difficulty_length_reward(effort, 50.0, 1.0) == 0.0
    assert difficulty_length_reward(effort, 50.0, 0.0) == length_reward(effort, 50.0)


grams = st.frozensets(st.sampled_from([bytes([i]) for i in range(8)]))


@given(sets=st.lists(grams, min_size=2, max_size=5))
def test_novelty_is_its_definition(sets: list[frozenset[bytes]]) -> None:
    got = novelty_reward(sets)
    for i, own in enumerate(sets):
        others = sets[:i] + sets[i + 1 :]
        similar = [len(own & o) / len(own | o) if own | o else 1.0 for o in others]
        mean_size = sum(map(len, others)) / len(others)
        share = 0.0 if not own else min(1.0, len(own) / mean_size) if mean_size else 1.0
        assert got[i] == pytest.approx((1 - sum(similar) / len(similar)) * share, abs=1e-9)
        assert 0.0 <= got[i] <= 1.0


def grams_of(text: str) -> frozenset[bytes]:
    return effort_of(rollout(text, prompt="a prompt of a few words"), 4, decode, default_answer_end).grams


def test_novelty_pays_for_another_way_and_for_no_trick() -> None:
    usual = " ".join(f"usual{i}" for i in range(40))
    another = " ".join(f"other{i}" for i in range(40))
    same, different = novelty_reward([grams_of(usual), grams_of(usual)]), [grams_of(usual)] * 3
    assert same == [0.0, 0.0]
    base = novelty_reward([*different, grams_of(usual)])
    assert base == [0.0] * 4
    honest = novelty_reward([*different, grams_of(another)])
    assert honest[3] == 1.0
    tricks = {
        "answer at once": "#### 42",
        "loop": " ".join(["round and round it goes"] * 30),
        "prompt copied": " ".join(["a prompt of a few words"] * 10),
        "padding behind the answer": "#### 42 " + another,
    }
    for name, text in tricks.items():
        got = novelty_reward([*different, grams_of(text)])
        assert got[3] < 0.3, name


def test_a_group_of_one_has_no_novelty() -> None:
    assert novelty_reward([grams_of("a b c d e")]) == ["alone"]


# the guarantees


texts = st.lists(
    st.sampled_from(["one", "two", "three", "####", "42", "answer is", "\\boxed{1}", *(f"w{i}" for i in range(9))]),
    max_size=30,
).map(" ".join)
members = st.lists(
    st.tuples(texts, st.booleans(), st.one_of(st.just("timeout"), st.floats(0, 1), st.floats(-3, 3))),
    min_size=1,
    max_size=4,
)


@given(
    groups=st.lists(members, min_size=1, max_size=3),
    form=st.sampled_from(FORMS),
    alpha=st.floats(0.5, 1.0, exclude_min=True),
    scale=st.floats(1e-3, 1e6),
)
def test_every_right_response_outscores_every_wrong_one(
    groups: list[Any], form: str, alpha: float, scale: float
) -> None:
    rollouts = [[rollout(text, right) for text, right, _ in own] for own in groups]
    judge = judged_as([score for own in groups for _, _, score in own])
    out, _ = rewarded(explorer(form, judge, length_scale=scale), [problem()] * len(groups), rollouts, alpha)
    right = [r.reward for own in out for r in own if r.right]
    wrong = [r.reward for own in out for r in own if not r.right]
    if right and wrong:
        assert min(right) > max(wrong)


@given(own=members, form=st.sampled_from(FORMS), flips=st.lists(st.booleans(), min_size=4, max_size=4))
def test_exploration_is_apart_from_correctness(own: list[Any], form: str, flips: list[bool]) -> None:
    right = [right for _, right, _ in own]
    flipped = [one != flip for one, flip in zip(right, flips, strict=False)]
    if form == "difficulty_length":  # this form knows the group's rate, and nothing else
        flipped = right[::-1]
    texts = [text for text, _, _ in own]
    before, after = ([rollout(*pair) for pair in zip(texts, ones, strict=True)] for ones in (right, flipped))
    seen = []

    def judge(pairs: Sequence[tuple[str, str]]) -> list[float | str]:
        seen.append(list(pairs))
        return [score for _, _, score in own]

    asked = explorer(form, judge)
    outs = [rewarded(asked, [problem()], [rollouts], 0.8)[0] for rollouts in (before, after)]
    assert explorations(outs[0]) == explorations(outs[1])
    assert len({str(pairs) for pairs in seen}) <= 1


def test_the_difficulty_form_knows_the_rate_alone() -> None:
    words = " ".join(f"w{i}" for i in range(40))
    asked = explorer("difficulty_length")

    def values(*right: bool) -> list[float | None]:
        return explorations(rewarded(asked, [problem()], [group([words] * 4, right)], 0.8)[0])

    assert (
        values(True, False, False, False) == values(False, False, True, False) == [pytest.approx(-0.75 * 10 / 40)] * 4
    )
    single = [[rollout(words, True)], [rollout(words)], [rollout(words)], [rollout(words)]]
    out, _ = rewarded(asked, [problem()] * 4, single, 0.8)
    assert explorations(out) == [pytest.approx(-0.75 * 10 / 40)] * 4  # groups of one: the step's rate, not their own


# mixing


@given(outcome=st.sampled_from([0.0, 1.0]), exploration=st.floats(-1, 1), alpha=st.floats(0, 1))
def test_mixing(outcome: float, exploration: float, alpha: float) -> None:
    assert mixed_reward(outcome, exploration, alpha) == pytest.approx(alpha * outcome + (1 - alpha) * exploration)
    assert mixed_reward(outcome, None, alpha) == alpha * outcome


def test_rewards_parts_and_metrics_of_a_step() -> None:
    long = " ".join(f"w{i}" for i in range(20))
    members = [rollout(long, True, overlong=-0.25, kl=0.125), rollout("#### 42 " + long)]
    before = [(r.reward, dict(r.reward_parts)) for r in members]
    out, metrics = rewarded(explorer("length"), [problem()], [members], 0.8)
    assert out[0][0].reward_parts == {"outcome": 1.0, "overlong": -0.25, "kl": 0.125, "exploration": -0.5}
    assert rewards(out) == [pytest.approx(0.8 - 0.2 * 0.5 - 0.25 + 0.125), pytest.approx(-0.2)]
    assert metrics == {
        "alpha": 0.8,
        "effort_tokens": 11.0,
        "left_out_groups": 0.0,
        "exploration": pytest.approx(-0.75),
    }
    assert [(r.reward, dict(r.reward_parts)) for r in members] == before
    again, _ = rewarded(explorer("length"), [problem()], out, 0.8)
    assert rewards(again) == rewards(out)  # the reward is made anew, not added to


def test_without_a_form_nothing_changes() -> None:
    members = group(["a b", "c d"], [True, False])
    assert rewarded(explorer("none", alpha=1.0), [problem()], [members], 1.0) == ([members], {})


def test_the_unclipped_form_can_score_a_right_response_below_a_wrong_one() -> None:
    members = [rollout("42", True), rollout(" ".join(f"w{i}" for i in range(99)))]
    out, _ = rewarded(explorer("length", clipped=False, length_scale=1000.0), [problem()], [members], 0.8)
    assert rewards(out)[0] < rewards(out)[1]
    assert explorations(out) == [-1000.0 / len(r.response_tokens) for r in members]  # the paper's |y|
    clipped, _ = rewarded(explorer("length", length_scale=1000.0), [problem()], [members], 0.8)
    assert rewards(clipped)[0] > rewards(clipped)[1]


# what is missing


@pytest.mark.parametrize("bad", ["timeout", "timeout: no verdict within 5 s", float("nan"), 1.5, -0.1])
def test_one_missing_score_leaves_its_whole_group_out(bad: float | str) -> None:
    scores = [0.5, bad, 0.25, 1.0]
    groups = [group(["a b c", "d e f"], [True, False]), group(["g h i", "j k l"], [True, False])]
    out, metrics = rewarded(explorer("judge", judged_as(scores)), [problem()] * 2, groups, 0.8)
    assert explorations(out) == [None, None, 0.25, 1.0]
    assert rewards(out) == [pytest.approx(x) for x in (0.8, 0.0, 0.8 + 0.2 * 0.25, 0.2)]
    assert metrics["left_out_groups"] == 1.0
    assert metrics["judge_failures"] == 1.0
    assert metrics["judge_failures_timeout" if isinstance(bad, str) else "judge_failures_nonsense"] == 1.0
    assert metrics["exploration"] == pytest.approx(0.625)


def test_a_judge_that_fails_altogether_leaves_the_outcome() -> None:
    groups = [group(["a b c", "d e f"], [False, False])]
    out, metrics = rewarded(explorer("judge", judged_as(["connection", "connection"])), [problem()], groups, 0.8)
    assert rewards(out) == [0.0, 0.0]
    assert not useful_groups([Group(problem(), own[0].prompt_tokens, tuple(own)) for own in out])
    assert "exploration" not in metrics
    assert metrics["judge_failures"] == metrics["judge_failures_connection"] == 2.0


def test_novelty_of_single_responses_is_left_out() -> None:
    out, metrics = rewarded(explorer("novelty"), [problem()], [[rollout("a b c d", True)]], 0.8)
    assert explorations(out) == [None]
    assert metrics["left_out_groups"] == 1.0


def test_the_judge_reads_the_problem_and_the_response_up_to_its_answer() -> None:
    seen: list[tuple[str, str]] = []

    def judge(pairs: Sequence[tuple[str, str]]) -> list[float | str]:
        seen.extend(pairs)
        return [0.5] * len(pairs)

    rewarded(explorer("judge", judge), [problem("why ?")], [[rollout("because #### 42 give me a one")]], 0.8)
    assert seen == [("why ?", "because #### 42")]
    chat = Problem(id="c", messages=({"role": "system", "content": "be brief"}, {"role": "user", "content": "why ?"}))
    assert problem_text(chat) == "system: be brief\n\nuser: why ?"


def test_a_judge_that_loses_scores_is_an_error() -> None:
    with pytest.raises(ValueError, match="1 scores for 2"):
        rewarded(explorer("judge", judged_as([0.5])), [problem()], [group(["a", "b"])], 0.8)


# schedules


@given(start=st.floats(0.51, 1), end=st.floats(0.51, 1), steps=st.integers(1, 500))
def test_the_weight_goes_from_one_end_to_the_other(start: float, end: float, steps: int) -> None:
    assume(min(start, end) < 1)  # else it is no exploration, and refused
    options = Exploration(form="length", alpha=start, alpha_end=end)
    path = [alpha_at(options, step, steps) for step in range(steps)]
    assert path[0] == start
    assert alpha_at(options, max(1, steps - 1), steps) == alpha_at(options, steps + 9, steps) == end
    assert path == sorted(path, reverse=end < start)
    middle = [alpha_at(options, step, 101) for step in (25, 50, 75)]
    assert middle == [pytest.approx(start + (end - start) * share, abs=1e-6) for share in (0.25, 0.5, 0.75)]


def test_the_weight_goes_through_several() -> None:
    """RLSP's "tune and decay": from the outcome alone to more exploration, and back."""
    options = Exploration(form="length", alpha=1.0, alpha_end=(0.6, 0.8))
    assert [round(alpha_at(options, step, 101), 3) for step in (0, 25, 50, 75, 100, 200)] == [
        1,
        0.8,
        0.6,
        0.7,
        0.8,
        0.8,
    ]


def test_a_constant_weight() -> None:
    options = Exploration(form="length", alpha=0.7)
    assert {alpha_at(options, step, 10) for step in range(12)} == {0.7}
