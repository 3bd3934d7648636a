"""reasoning-gym's problems: the same everywhere, judged strictly, and only where their scores can be trusted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import made_gym
import pytest
from run_fixtures import weak_model

from reasonloop.cli import main
from reasonloop.errors import InputError
from reasonloop.records import Problem, Verdict
from reasonloop.store.segments import TrajectoryStore
from reasonloop.tasks import check_task, load_task, task_problems
from reasonloop.tasks.gym.task import Gym, tagged
from reasonloop.tasks.show import verifier_pool
from reasonloop.verify import gym
from reasonloop.verify.gym import GymScorer
from reasonloop.verify.sandbox.limits import Limits
from reasonloop.verify.sandbox.sandbox import require_sandbox

try:
    require_sandbox()
    REFUSED = ""
except InputError as error:
    REFUSED = str(error)
SMALL = {"train": 6, "probe": 2, "test": 4}
BROKEN = ("boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour")
EXECUTING = ("countdown", "spiral_matrix", "simple_integration", "puzzle24", "n_queens", "string_insertion",
             "binary_matrix", "polynomial_multiplication")  # fmt: skip
HOSTILE = (
    "__import__('os').system('touch {mark}')",
    "open('{mark}', 'w')",
    "exec(\"open('{mark}', 'w')\")",
    "[c for c in ().__class__.__base__.__subclasses__()]",
    "(lambda: 1.0)()",
    "entry['answer']",
    "x" * 100_000,
    "(" * 5_000,
)


@pytest.fixture
def real() -> None:
    """Skips where reasoning-gym or the sandbox is not there."""
    pytest.importorskip("reasoning_gym")
    if REFUSED:
        pytest.skip(REFUSED)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library of `made_gym` in place of the real one."""
    if REFUSED:
        pytest.skip(REFUSED)
    found = made_gym.install(tmp_path, [])
    monkeypatch.setattr(gym, "_packages", lambda: [found])


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("so <answer>5</answer>", "5"),
        ("<answer>\n1 2\n3 4\n</answer> that is all", "1 2\n3 4"),
        ("<answer>4</answer> no, <Answer> 5 </ANSWER>", "5"),
        ("<think><answer>4</answer></think><answer>5</answer>", "5"),
        ("<think>is it <answer>4</answer>?", None),
        ("<answer>4</answer> or <answer>5", None),
        ("<answer><answer>5</answer>", "5"),
        ("<answer> \n </answer>", None),
        ("</answer>5", None),
        ("5", None),
        ("", None),
    ],
)
def test_the_answer_is_what_the_last_tag_holds(response, answer) -> None:
    assert tagged(response) == answer
    problem = Problem("p", "?", answer="5")
    quick = Gym(dataset="sums").quick(problem, response)
    assert (quick is None) == (answer is not None)
    assert quick is None or quick.verdict is Verdict.UNPARSEABLE


@pytest.mark.parametrize(
    ("extract", "response"), [("boxed", "so \\boxed{4}"), ("all", " 4\n"), ("answer", "<answer>4")]
)
def test_the_answer_is_where_extract_says(made, extract, response) -> None:
    task = Gym(dataset="sums", extract=extract, **SMALL)
    problem = next(problem for problem in task.problems() if problem.answer == "4")
    closed = response + "</answer>" * (extract == "answer")
    assert task.verify(problem, closed).verdict is Verdict.RIGHT
    assert task.verify(problem, task.gold_response(problem)).verdict is Verdict.RIGHT
    if extract == "answer":
        assert task.answer_end(problem, "</answer><Answer>4</answer> or") == len("</answer><Answer>4</answer>")
        assert task.answer_end(problem, response) is None


def test_right_is_a_score_of_1(made) -> None:
    strict, partial = (Gym(dataset="sums", partial=partial, **SMALL) for partial in (False, True))
    problem = next(problem for problem in strict.problems() if problem.answer == "4")
    for answer, verdict, score in (
        ("4", Verdict.RIGHT, 1.0),
        ("4 or 5", Verdict.WRONG, 0.25),
        ("5", Verdict.WRONG, 0.0),
        ("do:nan", Verdict.CRASHED, None),
        ("do:end", Verdict.CRASHED, None),
    ):
        judged = [task.verify(problem, f"<answer>{answer}</answer>") for task in (strict, partial)]
        assert [found.verdict for found in judged] == [verdict, verdict], answer
        assert [found.score for found in judged] == [None, score]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("any", "it gives the score 1 to 'x'"),
        ("alien", "it gives the score 1 to another problem's answer in 4 of 4 cases"),
        ("mute", "it has no answer of its own to"),
        ("half", "scores 0.5; expected 1"),
        ("fickle", "scores nothing (crashed: the generator made another problem than before)"),
        ("broken", "failed to make problems: ValueError: no words left"),
    ],
)
def test_a_generator_that_cannot_be_trusted_is_refused(made, name, message) -> None:
    with pytest.raises(InputError) as refused:
        Gym(dataset=name, **SMALL).problems()
    assert f"task gym: the generator '{name}'" in str(refused.value)
    assert message in str(refused.value)


def test_too_few_problems_are_counted(made) -> None:
    with pytest.raises(InputError) as refused:
        Gym(dataset="sums", config={"most": 7}, **SMALL).problems()
    assert "7 were found where train + probe + test = 12 (1 of 6 train, 2 of 2 probe, 4 of 4 test)" in str(
        refused.value
    )


def test_no_prompt_is_in_two_splits(made) -> None:
    problems = Gym(dataset="sums", config={"most": 12}, **SMALL).problems()
    assert Counter(problem.split for problem in problems) == SMALL
    assert len({problem.prompt for problem in problems}) == 12
    other = Gym(dataset="sums", config={"most": 1_000_000_000}, seed=299, **SMALL).problems()
    assert not {problem.prompt for problem in other} & {problem.prompt for problem in problems}


def test_more_training_problems_leave_the_others_as_they_are(made) -> None:
    few, many = (Gym(dataset="sums", config={"most": 40}, **{**SMALL, "train": n}).problems() for n in (6, 20))
    assert [problem for problem in few if problem not in many] == []


def test_prompts_are_what_the_options_say(made) -> None:
    options = {"format": "chat", "system": "Think.", "prompt_template": "{prompt} {x}", **SMALL}
    problem = load_task("gym", {"dataset": "sums", **options}).problems()[0]
    asked = problem.meta["question"] + " {x}"
    assert problem.messages == ({"role": "system", "content": "Think."}, {"role": "user", "content": asked})
    json.dumps(problem.meta)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt_template": "?"}, "expected it to contain {prompt}"),
        ({"system": "Think."}, 'expected format = "chat"'),
        ({"data": "sums"}, "unknown key 'data'; did you mean 'dataset'"),
        ({"seed": 300}, "seed = 300"),
        ({"extract": "final"}, "extract = 'final'"),
    ],
)
def test_bad_options_are_named(options, message) -> None:
    with pytest.raises(InputError) as refused:
        load_task("gym", {"dataset": "sums", **options})
    assert message in str(refused.value)


def test_every_gold_answer_is_right_in_a_pool(real) -> None:
    options = {"dataset": "leg_counting", **SMALL}
    task = load_task("gym", options)
    problems = task_problems(task, "gym")
    with verifier_pool("gym", options, 5.0, 2) as pool:
        assert check_task(task, problems, pool) == []
        assert pool.sent == len(problems)
        beside = [(problem, f"<answer>{problem.answer}, or not</answer>") for problem in problems]
        assert {judgement.verdict for judgement in pool.verify(beside)} == {Verdict.WRONG}


def test_two_processes_make_the_same_problems(real) -> None:
    code = (
        "from reasonloop.tasks.gym.task import Gym\n"
        "for name in ('list_functions', 'pool_matrix', 'knights_knaves', 'word_ladder'):\n"
        f"    print([(p.id, p.prompt, p.answer) for p in Gym(dataset=name, **{SMALL}).problems()])"
    )
    made = [
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    ]
    assert made[0] == made[1] != b""


@pytest.mark.parametrize("name", [*BROKEN, "game_of_life_halting"])
def test_broken_generators_are_refused(real, name, capsys) -> None:
    assert main(["tasks", "check", f"gym?dataset={name}&train=0&probe=0&test=12"]) == 2
    told = capsys.readouterr().err.strip()
    assert told.startswith(f"reasonloop: task gym: the generator '{name}' is refused: it ")
    assert "\n" not in told


def test_a_scorer_that_raises_is_no_traceback(real) -> None:
    task = Gym(dataset="prime_factorization", **SMALL)
    for problem in task.problems()[:2]:
        for garbage in ("x", "2 x", "2 × x"):
            found = task.verify(problem, f"<answer>{garbage}</answer>")
            assert found.verdict is Verdict.CRASHED
            assert "ValueError" in found.detail


@pytest.mark.parametrize("name", EXECUTING)
def test_hostile_answers_are_never_right(real, name, tmp_path) -> None:
    mark = tmp_path / "mark"
    tmp_path.chmod(0o777)
    with GymScorer(name, {}, [(0, 4)], Limits(timeout=1.0, memory_mib=1024)) as scorer:
        ((question, gold),) = scorer.entries(0, 0, 1)
        for hostile in HOSTILE:
            assert scorer.score((0, 0), question, hostile.format(mark=mark)) != 1.0, hostile
        tower = scorer.score((0, 0), question, "9**9**9**9")
        assert tower != 1.0
        assert name not in ("countdown", "spiral_matrix") or tower.verdict is Verdict.TIMEOUT
        assert not mark.exists()
        assert scorer.score((0, 0), question, gold) == 1.0


def test_a_whole_run(real, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = "task.config={min_terms=2,max_terms=2,min_digits=1,max_digits=1}"
    task = ["task.name=gym", "task.dataset=chain_sum", "task.extract=all", "task.prompt_template={prompt}", config]
    task += ["task.train=12", "task.probe=2", "task.test=4"]
    small = ["method=rl", "rl.steps=2", "rl.problems_per_step=4", "rl.group_size=4", "eval.samples=2"]
    small += ["sampling.max_tokens=8", f"model.path={weak_model()}"]
    recipe = tmp_path / "gym.toml"
    recipe.write_text("")
    assert main(["run", str(recipe), *small, *task, "--out", "run"]) == 0
    rollouts = TrajectoryStore(tmp_path / "run" / "trajectories", "run").read()
    assert len(rollouts) >= 32
    assert {rollout.verdict for rollout in rollouts} <= {Verdict.RIGHT, Verdict.WRONG, Verdict.UNPARSEABLE}
    assert any(rollout.verdict is Verdict.WRONG for rollout in rollouts)
