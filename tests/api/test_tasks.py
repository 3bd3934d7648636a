"""Tasks of one's own, from Python: classes, files, and what workers can't import."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from run_fixtures import weak_model

import reasonloop
from reasonloop.errors import InputError

OWN = """
from reasonloop import Judgement, Problem, Verdict

class Even:
    def __init__(self, train=3):
        self.train = train
    def problems(self):
        return [Problem(id=f"n{n}", prompt=f"{n} from", answer="2", split="train") for n in range(self.train)]
    def verify(self, problem, response):
        right = response.strip().isdecimal() and int(response) % 2 == 0
        return Judgement(Verdict.RIGHT if right else Verdict.WRONG, response[:20])
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "even_numbers.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    yield tmp_path
    sys.modules.pop("even_numbers", None)


def test_a_class_in_a_file_judges_in_workers(own: Path) -> None:
    from even_numbers import Even

    for named in (Even, "even_numbers:Even"):
        with reasonloop.load_task(named, train=5, verify_deadline=20, verify_workers=1) as task:
            assert repr(task) == "Task(even_numbers:Even: 5 train)"
            assert task.verify(task.train[0], " 4 ").verdict is reasonloop.Verdict.RIGHT
            assert task.verifier.sent == 6  # every gold answer, and this one
        assert task.verify(task.train[0], "3").verdict is reasonloop.Verdict.WRONG  # closed, it starts again
        task.close()


def test_a_verifier_that_says_no_to_its_own_gold_is_found_at_once(own: Path) -> None:
    (own / "even_numbers.py").write_text(OWN.replace("% 2 == 0", "% 2 == 1"))
    with pytest.raises(InputError, match="3 gold answers do not verify as right"):
        reasonloop.load_task("even_numbers:Even")
    assert len(reasonloop.load_task("even_numbers:Even", check=False).train) == 3


def test_what_a_worker_cant_import_is_refused(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Local:
        def problems(self) -> list[reasonloop.Problem]:
            return []

        def verify(self, problem: reasonloop.Problem, response: str) -> reasonloop.Verdict:
            return reasonloop.Verdict.WRONG

    with pytest.raises(InputError, match=r"%%writefile own.py.*own:Local"):
        reasonloop.load_task(Local)
    Cell = type("Cell", (Local,), {"__module__": "__main__", "__qualname__": "Cell"})
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    with pytest.raises(InputError, match=r"%%writefile own.py.*own:Cell"):
        reasonloop.load_task(Cell)


def test_files_of_problems_and_prompts_of_ones_own(own: Path) -> None:
    (own / "rows.jsonl").write_text('{"prompt": "2 from 1 1 :", "answer": "1 + 1"}\n')
    task = reasonloop.load_task("rows.jsonl", verifier="exact")
    assert [problem.answer for problem in task.test] == ["1 + 1"]
    assert "1 test, none to train on" in repr(task)
    with pytest.raises(InputError, match=r"load_task\('jsonl', train='rows.jsonl'\)"):
        task.batch(0, 1)
    policy = reasonloop.Policy.load(weak_model(), "cpu")
    free = reasonloop.sample(policy, None, [reasonloop.Problem(id="mine", prompt="2 from 1 1 :")], max_tokens=5)
    assert len(free[0].rollouts) == 8
    assert {rollout.reward for rollout in free[0].rollouts} == {0.0}


def test_a_list_of_problems_is_a_task() -> None:
    problems = [
        reasonloop.Problem(id="a", prompt="1/2 + 1/2 =", answer="1"),
        reasonloop.Problem(id="b", prompt="sqrt(8) =", answer="2\\sqrt{2}", split="test"),
    ]
    task = reasonloop.load_task(problems)
    assert (task.train, task.test) == (problems[:1], problems[1:])
    assert task.verify(problems[1], r"it is \boxed{\sqrt{8}}").verdict is reasonloop.Verdict.RIGHT
    exact = reasonloop.load_task(problems, verifier="exact", extract="all")
    assert exact.verify(problems[0], "1.0").verdict is reasonloop.Verdict.WRONG
    with pytest.raises(InputError, match="an empty list"):
        reasonloop.load_task([])
    with pytest.raises(InputError, match="did you mean 'verifier'"):
        reasonloop.load_task(problems, verifer="exact")
    with pytest.raises(InputError, match="is a dict; expected a reasonloop"):
        reasonloop.load_task([{"prompt": "1 + 1"}])  # type: ignore[list-item]


def test_a_reward_needs_no_task() -> None:
    policy = reasonloop.Policy.load(weak_model(), "cpu")
    problems = [reasonloop.Problem(id="mine", prompt="2 from 1 1 :")]
    (group,) = reasonloop.sample(policy, None, problems, max_tokens=9, reward=lambda problem, r: r.text.count("+"))
    assert [r.reward for r in group.rollouts] == [r.text.count("+") for r in group.rollouts] != [0.0] * 8


def test_batches_pass_over_all_problems() -> None:
    task = reasonloop.load_task("countdown", numbers=2, train=10, probe=0, test=0, max_number=9)
    batches = [task.batch(step, 4) for step in range(5)]
    assert all(len({problem.id for problem in batch}) == 4 for batch in batches)
    assert {problem.id for batch in batches[:3] for problem in batch} == {problem.id for problem in task.train}
    assert task.batch(0, 4, seed=1) != batches[0] == task.batch(0, 4)
