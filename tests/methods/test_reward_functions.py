"""`[rewards]`: functions of the user's own beside the outcome, on small real runs; and what they may do wrong."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from run_fixtures import command, metrics, outcome, small_recipe

from reasonloop import config
from reasonloop.cli import main
from reasonloop.config import RewardFunction
from reasonloop.errors import InputError
from reasonloop.methods.arms import vanilla
from reasonloop.records import Group, Place, Problem, Rollout
from reasonloop.rewards.functions import RewardFunctions, check_functions
from reasonloop.store.segments import TrajectoryStore

FUNCTIONS = '''
import os, time

TRAINER = os.environ.get("TRAINER")

def tries(problem, response):
    """Of the response alone, and never in the training process."""
    assert str(os.getpid()) != TRAINER
    return response.count("=") / 4

def prompted(problem, response):
    return response.split()[:1] == problem.prompt.split()[:1]  # a truth value is a number, too

def picky(problem, response):
    if len(response) % 7 == 0:
        raise ValueError("a multiple\\nof seven")
    return len(response)

def misdeeds(problem, response):
    if response == "exit":
        os._exit(3)
    if response == "hang":
        time.sleep(600)
    found = {"nan": float("nan"), "inf": float("inf"), "none": None, "text": "high", "huge": 10**400, "list": [1]}
    return found.get(response, len(response) - 2.5)

def one_argument(response):
    return 1.0

number = 3
'''


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with functions, and a recipe beside them."""
    (tmp_path / "my_rewards.py").write_text(FUNCTIONS)
    small_recipe(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])
    yield tmp_path
    sys.modules.pop("my_rewards", None)


def argv(*overrides: str, out: str = "run") -> list[str]:
    return ["run", "small.toml", "eval.samples=1", "eval.problems=2", *overrides, "--out", out]


def stored(out: Path, branch: str | None = None) -> list[Rollout]:
    return TrajectoryStore(out / "trajectories", "run").read(branch)


TRIES = "rewards.tries={function='my_rewards:tries', weight=0.5}"
PROMPTED = "rewards.prompted={function='my_rewards:prompted', weight=-0.25}"


def test_parts_are_stored_and_added_with_their_weights(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setenv("TRAINER", str(os.getpid()))
    options = ("rl.overlong_buffer=6", "rl.kl_coef=0.1", "rl.kl_in=reward", "exploration.form=length")
    options = (*options, "exploration.length_scale=4", "rl.refill_rounds=1", "rloop.vanilla=true", "rl.steps=2")
    assert main(argv(*options, TRIES, PROMPTED)) == 0
    out = here / "run"
    rollouts = [r for r in stored(out) if r.place.stage == "explore"]
    assert {r.branch for r in rollouts} == {"main", "vanilla"}
    for r in rollouts:
        parts = r.reward_parts
        assert parts.keys() == {"outcome", "overlong", "kl", "exploration", "tries", "prompted"}
        assert parts["tries"] == r.text.count("=") / 4
        mixed = 0.8 * parts["outcome"] + 0.2 * parts["exploration"] + parts["overlong"] + parts["kl"]
        assert r.reward == pytest.approx(mixed + 0.5 * parts["tries"] - 0.25 * parts["prompted"])
    for line in metrics(out, stage="explore"):
        assert (line["reward_failures_tries"], line["reward_failures_prompted"]) == (0, 0)
        assert {"tries", "prompted"} <= line["reward_parts"].keys()
    page = (out / "report.html").read_text()
    assert '"name":"tries"' in page.replace('": "', '":"')


def test_groups_have_a_gradient_where_a_reward_function_tells_their_responses_apart(here: Path) -> None:
    """All weight on the function: what has no gradient with the outcome alone gets one."""
    assert main(argv("method=rl", "rl.steps=1", "rewards.tries={function='my_rewards:tries', weight=2}")) == 0
    rollouts = stored(here / "run")
    groups = [
        {round(r.reward, 9) for r in rollouts if r.problem_id == name} for name in {r.problem_id for r in rollouts}
    ]
    (line,) = metrics(here / "run", stage="explore")
    assert line["groups_used"] == sum(len(own) > 1 for own in groups)


@pytest.mark.parametrize("method", ["rlsp", "rl"])
def test_other_methods_and_a_critic_have_them_too(method: str, here: Path) -> None:
    more = ("rlsp.vanilla=true", "exploration.form=novelty") if method == "rlsp" else ()
    assert main(argv(f"method={method}", "rl.objective=ppo", "rl.steps=1", *more, TRIES)) == 0
    rollouts = stored(here / "run")
    assert all(r.reward_parts["tries"] == r.text.count("=") / 4 for r in rollouts)
    # the baseline on the outcome alone goes without the exploration reward, and keeps the recipe's own
    assert {r.branch for r in rollouts if "exploration" not in r.reward_parts} == {"vanilla" if more else "main"}


def test_a_failing_function_costs_its_groups_their_part_and_is_counted_and_told(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv("method=rl", "rl.steps=3", "rewards.picky.function=my_rewards:picky", TRIES)) == 0
    said = capsys.readouterr().err
    rollouts, failures = stored(here / "run"), 0
    for step in range(3):
        own = [r for r in rollouts if r.step == step]
        for name in {r.problem_id for r in own}:
            group = [r for r in own if r.problem_id == name]
            failed = [r for r in group if len(r.text) % 7 == 0]
            assert [("picky" in r.reward_parts) for r in group] == [not failed] * len(group)
            for r in group:
                expected = r.reward_parts["outcome"] + 0.5 * r.reward_parts["tries"]
                assert r.reward == pytest.approx(expected + (0 if failed else len(r.text)))
        counted = metrics(here / "run", stage="explore", step=step)[0]["reward_failures_picky"]
        assert counted == sum(len(r.text) % 7 == 0 for r in own)
        failures += counted
    assert failures > 0
    assert re.search(
        r"reward picky: no number for \d+ of 16 responses \(crashed: ValueError: a multiple of seven\)", said
    )
    assert f"picky gave no score to {failures:.0f} of 48 responses" in (here / "run" / "report.html").read_text()


def test_runs_without_rewards_are_what_they_were_and_zero_weight_measures_only(here: Path) -> None:
    assert main(argv("method=rl", out="plain/run")) == 0
    assert main(argv("method=rl", "rewards.tries={function='my_rewards:tries', weight=0}", out="watched/run")) == 0
    plain, watched = outcome(here / "plain/run"), outcome(here / "watched/run")
    for name, content in plain.items():
        if name.endswith(".safetensors"):
            assert watched[name] == content, name
    assert all("tries" in r.reward_parts for r in stored(here / "watched/run"))
    assert not any("reward_failures" in key for line in metrics(here / "plain/run") for key in line)


def test_a_killed_run_with_rewards_ends_with_the_same_bytes(here: Path) -> None:
    options = ("method=rl", "rl.steps=3", "rl.refill_rounds=1", TRIES, "rewards.picky.function=my_rewards:picky")
    assert command(argv(*options, out=f"{here}/whole/run"), log=here / "log", cwd=here) == 0
    again = argv(*options, out=f"{here}/broken/run")
    for change in (24, 31):
        code = command(again, log=here / "log", watched=here / "broken/run", kill_at=change, cwd=here)
        assert code == -signal.SIGKILL, (here / "log").read_text()
    assert command(again, log=here / "log", cwd=here) == 0
    assert outcome(here / "broken/run") == outcome(here / "whole/run")


def test_functions_are_found_beside_the_recipe(here: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    code = command(
        ["run", here / "small.toml", "method=sft", TRIES, "--dry-run"],
        log=here / "log",
        cwd=tmp_path / "elsewhere",
    )
    assert code == 0, (here / "log").read_text()


@pytest.mark.parametrize("dry", [["--dry-run"], []])
@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "rewards.f.function=my_rewards:none",
            "rewards.f.function = 'my_rewards:none': module 'my_rewards' has no 'none'",
        ),
        ("rewards.f.function=nowhere:f", "rewards.f.function = 'nowhere:f': module 'nowhere' cannot be imported"),
        ("rewards.f.function=my_rewards:number", "it is a int; expected a function of (problem, response)"),
        (
            "rewards.f.function=my_rewards",
            "function = 'my_rewards': expected one of (problem, response text), as module:",
        ),
        ("rewards.f.weight=1", "function = '': expected one of (problem, response text), as module:name"),
        ("rewards.kl.function=a:b", "'kl': the reward has a part of this name (outcome, exploration, overlong, kl)"),
        ("rewards.a-b.function=a:b", "'a-b': expected a name of letters, digits and _ (at most 40, a letter first)"),
        ("rewards.function=a:b", "'function': expected a table under a name of yours, such as [rewards.format]"),
        (
            "rewards={f={function='a:b', wieght=1}}",
            "unknown key 'rewards.f.wieght'; did you mean 'rewards.NAME.weight'?",
        ),
        ("rewards.f={function='a:b', weight=nan}", "rewards.f.weight = nan: input should be a finite number"),
    ],
)
def test_what_cannot_be_a_reward_is_one_clear_line(
    override: str, said: str, dry: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*argv(override), *dry]) == 2
    found = capsys.readouterr().err
    assert said in found
    assert found.count("\n") == 1
    assert not (here / "run").exists()


def test_one_that_never_gives_a_number_is_found_before_the_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv("rewards.f.function=my_rewards:one_argument")) == 2
    found = capsys.readouterr().err
    assert "rewards.f.function = 'my_rewards:one_argument': no number for a response to problem" in found
    assert "TypeError: one_argument() takes 1 positional argument but 2 were given" in found
    assert not (here / "run").exists()


@pytest.mark.parametrize("advantage", ["maxrl", "pass@2"])
def test_advantages_for_outcomes_alone_refuse_them(advantage: str) -> None:
    with pytest.raises(InputError, match=r"is for outcomes alone; \[rewards\] adds to them"):
        config.parse({}, [f"rl.advantage={advantage}", TRIES], "recipe")


def test_arms_of_other_rewards_are_other_arms() -> None:
    plain, rewarded = (config.parse({}, given, "recipe") for given in ([], [TRIES]))
    known = vanilla(rewarded).options(rewarded)
    assert known == {
        **vanilla(plain).options(plain),
        "rewards.tries.function": "my_rewards:tries",
        "rewards.tries.weight": 0.5,
    }


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("exit", "crashed: the worker died: exit status 3"),
        ("hang", "timeout: no verdict within 0.5 s"),
        ("nan", "nonsense: it returned nan"),
        ("inf", "nonsense: it returned inf"),
        ("none", "nonsense: it returned None"),
        ("text", "nonsense: it returned 'high'"),
        ("huge", "nonsense: it returned 1000"),
        ("list", "nonsense: it returned [1]"),
        ("x" * 1_000_001, "nonsense: a response of 1,000,001 characters"),
    ],
)
def test_a_misdeed_costs_its_own_group_alone(response: str, reason: str, here: Path) -> None:
    functions = RewardFunctions({"f": RewardFunction(function="my_rewards:misdeeds", weight=2.0)}, 1, 0.5)
    empty, told = np.empty(0, np.int32), list[str]()

    def group(*texts: str) -> Group:
        made = [Rollout("p", empty, empty, empty.astype(np.float32), text=t, reward=1.0, place=Place()) for t in texts]
        return Group(Problem("p", prompt="?"), empty, tuple(made))

    before = [group("a", "bc", ""), group("abc", response), group("ab")]
    try:
        rewarded, measured = functions.reward(before, told.append)
        functions.reward(before[1:2], told.append)
        functions.reward(before, told.append)
    finally:
        functions.close()
    assert rewarded[1] == before[1]
    assert [[(r.reward, r.reward_parts) for r in g.rollouts] for g in (rewarded[0], rewarded[2])] == [
        [(-2.0, {"f": -1.5}), (0.0, {"f": -0.5}), (-4.0, {"f": -2.5})],
        [(0.0, {"f": -0.5})],
    ]
    assert measured == {"reward_failures_f": 1.0}
    assert len(told) == 1  # a kind once, but for where more than half fail
    assert told[0].startswith(f"reward f: no number for 1 of 6 responses ({reason}")


def test_nothing_is_tried_without_a_problem(here: Path) -> None:
    check_functions({"f": RewardFunction(function="my_rewards:one_argument")}, 5.0)
