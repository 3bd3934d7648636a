"""A run remembers what it was given, and goes on with nothing else."""

from __future__ import annotations

import datetime
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from run_fixtures import random_model

from reasonloop.cli import main
from reasonloop.config import Recipe
from reasonloop.policy.policy import Policy
from reasonloop.records import Problem
from reasonloop.runs.inputs import MIB, WHOLE, date_of, of_file, of_problems
from reasonloop.runs.session import Session
from reasonloop.store.segments import TrajectoryStore

TEMPLATE = (
    "{{ bos_token }} {{ strftime_now('%-d %-H') }} {% for m in messages %}{{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}={% endif %}"
)


class Killed(BaseException):
    pass


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model with a template that writes the day, problems, and a run of two steps of which one is done."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(random_model(), "chat")
    Path("chat/chat_template.jinja").write_text(TEMPLATE)
    for name, first in (("train", 1), ("test", 41)):
        rows = [
            json.dumps({"messages": [{"role": "user", "content": f"{n} from {n} 0 :"}], "answer": str(n)})
            for n in range(first, first + 10)
        ]
        Path(f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    Path("r.toml").write_text(
        'method = "rl"\nthreads = 1\ncheckpoint_seconds = 0\n[model]\npath = "chat"\ndate = 2026-02-03\n[sampling]\n'
        'max_tokens = 8\n[rl]\nsteps = 2\nproblems_per_step = 4\ngroup_size = 2\nobjective = "ppo"\n[eval]\nsamples = 1\n'
        '[task]\nname = "file"\nverifier = "numeric"\nextract = "last_number"\ntrain = "train.jsonl"\ntest = "test.jsonl"\n'
    )
    with monkeypatch.context() as patch:
        stop = Session.stop_point

        def once(run: Session) -> None:
            stop(run)
            if run.folder.state.get("step") == 1:
                raise Killed

        patch.setattr(Session, "stop_point", once)
        with pytest.raises(Killed):
            main(["run", "r.toml", "--out", "run"])
    return tmp_path


def rewrite(file: str, change: Callable[[str], str]) -> None:
    Path(file).write_text(change(Path(file).read_text()))


def another_model() -> None:
    policy = Policy.load("chat", "cpu")
    with torch.no_grad():
        policy.model.model.norm.weight[0] += 1e-3
    policy.save("changed")
    shutil.copy("changed/model.safetensors", "chat/model.safetensors")


CHANGES = {
    "other train problems (1 of 10, ": lambda: rewrite("train.jsonl", lambda text: text.replace('r": "3"', 'r": "4"')),
    "other test problems (1 of 10, ": lambda: rewrite("test.jsonl", lambda text: text.rpartition("\n{")[0] + "\n"),
    "other train problems (in their order": lambda: rewrite(
        "train.jsonl", lambda text: "\n".join([*reversed(text.splitlines())]) + "\n"
    ),
    "another chat_template.jinja of the model": lambda: rewrite(
        "chat/chat_template.jinja", lambda text: text.replace("=", ":")
    ),
    "another tokenizer_config.json of the model": lambda: rewrite(
        "chat/tokenizer_config.json", lambda text: f"{text}\n"
    ),
    "another model.safetensors of the model": another_model,
}


def test_it_goes_on_with_what_it_began_with_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file() and "run" not in path.parts}
    for told, change in CHANGES.items():
        change()
        assert main(["run", "r.toml", "--out", "run"]) == 2, told
        assert f"the run began with other inputs: {told}" in capsys.readouterr().err
        for path, content in kept.items():
            path.write_bytes(content)
    assert main(["run", "r.toml", "--out", "run"]) == 0
    tokenizer = Policy.load("chat", "cpu").codec.tokenizer
    stored = TrajectoryStore(here / "run" / "trajectories", "run").read("main")
    assert len(stored) == 16
    assert {tokenizer.decode(r.prompt_tokens[1:3].tolist()) for r in stored} == {"3 0"}  # midnight of the recipe's day


def test_its_date_is_that_of_its_begin(tmp_path: Path) -> None:
    own = Recipe.model_validate({"model": {"date": "2026-02-03"}})
    assert date_of(own, tmp_path) == datetime.date(2026, 2, 3)
    assert date_of(Recipe(), tmp_path) == datetime.date.today()
    (tmp_path / "inputs.json").write_text('{"date": "2026-01-02"}')
    assert date_of(own, tmp_path) == datetime.date(2026, 1, 2)


def test_a_template_writes_the_given_day_in_every_form() -> None:
    policy = Policy.load(random_model(), "cpu")
    codec, problem = policy.codec, Problem("p", messages=({"role": "user", "content": "3 + 5"},))
    codec.tokenizer.chat_template = (
        "from {% if strftime_now is defined %}{{ strftime_now( \"%-d\" ) }} + {{strftime_now('%-m')}}{% endif %} "
        "{{ messages[0]['content'] }}"
    )
    codec.date = datetime.date(2026, 11, 28)
    assert codec.decode(codec.encode_prompt(problem)) == "from 28 + 11 3 + 5"


def test_a_problem_is_what_it_is_wherever_it_was_read() -> None:
    def digest(**own: object) -> str:
        whole = {"id": "a", "prompt": "p", "answer": "1", "meta": {"file": "x.jsonl", "line": 3, "tests": [1]}} | own
        return of_problems([Problem(**whole)])  # type: ignore[arg-type]

    assert digest(meta={"file": "y.jsonl", "line": 4, "tests": [1]}) == digest()
    for own in ({"id": "b"}, {"prompt": "q"}, {"answer": "2"}, {"response": "r"}, {"meta": {"tests": [2]}}):
        assert digest(**own) != digest()
    both = [Problem("a", "p"), Problem("b", "p")]
    assert of_problems(both) != of_problems(reversed(both))


def test_a_large_file_is_known_by_its_parts(tmp_path: Path) -> None:
    """Whatever is a MiB or longer is seen, wherever it begins, and so are both ends."""
    file, size = tmp_path / "weights", WHOLE + 3 * MIB + 5
    with file.open("wb") as made:
        made.truncate(size)
    before, rng = of_file(file), np.random.default_rng(0)
    for start, length in ((0, 1), (size - 1, 1), *((int(place), MIB) for place in rng.integers(0, size - MIB, 4))):
        with file.open("r+b") as opened:
            opened.seek(start)
            opened.write(b"x" * length)
        assert of_file(file) != before
        with file.open("r+b") as opened:
            opened.seek(start)
            opened.write(bytes(length))
        assert of_file(file) == before
