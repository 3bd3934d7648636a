"""`reasonloop.load_task`: a task's problems by split, and its verifier in killable workers. Free of torch."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, cast

from reasonloop import tasks
from reasonloop.config import Section, TaskConfig, validated
from reasonloop.errors import InputError
from reasonloop.evaluation.majority import Answers, answers_of
from reasonloop.records import Judgement, Place, Problem
from reasonloop.tasks import parse_task_spec, require_gold, task_problems, task_target, tell
from reasonloop.tasks.base import ALL_SPLITS
from reasonloop.verify.extract import extract_answer
from reasonloop.verify.worker import load_verifier
from reasonloop.verify.workers import VerifierPool, VerifierSpec


class Task:
    """A task that is loaded: `train`, `probe` and `test` are lists of Problems, `verify` judges a response.

    Verdicts come from worker processes that are killed at their deadline. They start with the first response that needs one
    and end with the task or the interpreter; `close()`, or a `with` block, ends them sooner.
    """

    def __init__(self, config: TaskConfig, problems: Sequence[Problem] | None = None) -> None:
        """As `load_task` makes it."""
        self.name, self.options = config.name, config.options
        self._config = config
        if problems is None:
            self._spec = VerifierSpec(task_target(config.name), config.options)
            self._task = tasks.load_task(config.name, config.options)
        else:
            chosen = validated(GivenOptions, config.options, "problems")
            target = f"reasonloop.verify.verifiers:{chosen.verifier.title()}Verifier"
            self._spec = VerifierSpec(target, {"extract": chosen.extract})
            self._task = cast(tasks.Task, _Given(problems, load_verifier(target, self._spec.options)))
        self._splits: dict[str, list[Problem]] = {split: [] for split in ALL_SPLITS}
        for problem in task_problems(self._task, config.name):
            self._splits[problem.split].append(problem)

    @property
    def train(self) -> list[Problem]:
        """Problems to train on"""
        return self._splits["train"]

    @property
    def probe(self) -> list[Problem]:
        """Held-out problems that may steer: when to stop, which rate"""
        return self._splits["probe"]

    @property
    def test(self) -> list[Problem]:
        """Held-out problems that only tell how it came out"""
        return self._splits["test"]

    def split(self, name: str) -> list[Problem]:
        """The problems of a split. Raises InputError for a name that is none."""
        if name not in self._splits:
            raise InputError(f"task {self.name!r}: split {name!r}; expected one of {', '.join(ALL_SPLITS)}")
        return self._splits[name]

    def batch(self, step: int, size: int, seed: int = 0, iteration: int = 0) -> list[Problem]:
        """The training problems of step 0, 1, ...: `size` different ones, in shuffled passes over all of them, as a run with
        this seed takes them. Raises InputError if there are fewer."""
        for name, value in {"step": step, "size": size, "seed": seed, "iteration": iteration}.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise InputError(f"task {self.name!r}: batch: {name} = {value!r}: expected a whole number, at least 0")
        if not 1 <= size <= len(self.train):
            raise InputError(
                f"task {self.name!r}: a batch of {size}: it has {len(self.train)} training problems{self._to_train_on}"
            )
        from reasonloop.stages.common import shuffled

        picked: dict[int, None] = {}
        position = step * size
        while len(picked) < size:  # at the seam of two passes a problem may come twice
            picked[shuffled(position, len(self.train), seed, Place(iteration=iteration))] = None
            position += 1
        return [self.train[i] for i in picked]

    @property
    def _to_train_on(self) -> str:
        """How to have some, where a file was named alone: its problems are test problems."""
        named: dict[str, str] = getattr(self._task, "files", dict)()
        if self.train or not named:
            return ""
        return f"; expected a file of them: reasonloop.load_task({self.name!r}, train={named.get('test', 'FILE')!r})"

    def verify(self, problem: Problem, response: str) -> Judgement:
        """The verdict on one response, with what led to it (`detail`) and partial credit (`score`, 0 to 1, or None)."""
        return self.verifier.verify([(problem, response)])[0]

    def gold(self, problem: Problem) -> str | None:
        """A response that verifies as right; None where the task has none."""
        return tasks.gold_response(self._task, problem)

    @property
    def answers(self) -> Answers | None:
        """What a response's final answer is, where the task can tell: evaluations let responses vote by it"""
        return answers_of(self._task)

    def demonstrations(self, n: int = 0, seed: int = 0, **options: Any) -> list[tuple[Problem, str]]:
        """(problem, response) pairs for `Learner.finetune`: the first `n` of the task's own, or generated where it has a
        generator (`options` are then its own). 0: all that the task has."""
        if n == 0 and hasattr(self._task, "demonstrations"):
            raise InputError(f"task {self.name!r} generates demonstrations; expected their number")
        return list(islice(tasks.demonstrations(self._task, n, seed, **options), n or None))

    @cached_property
    def verifier(self) -> VerifierPool:
        """The workers"""
        return VerifierPool(self._spec, deadline=self._config.verify_deadline, workers=self._config.verify_workers)

    def check(self) -> None:
        """Verifies every problem's gold answer against itself. Raises InputError, naming the first rows, unless all are
        right: a verifier that says no to everything is found before any training."""
        problems = [problem for split in self._splits.values() for problem in split]
        require_gold(self._task, problems, self.verifier, f"task {self.name!r}")
        tell(self._task)

    def close(self) -> None:
        """Ends the workers."""
        if "verifier" in self.__dict__:
            self.__dict__.pop("verifier").close()

    def __enter__(self) -> Task:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(problems)} {split}" for split, problems in self._splits.items() if problems)
        return f"Task({self.name}: {sizes or 'no problems'}{'' if self.train else ', none to train on'})"


class GivenOptions(Section):
    """Options of a task that is a list of Problems: as those of a file's."""

    verifier: Literal["math", "numeric", "exact"] = "math"
    extract: Literal["boxed", "hash", "last_number", "final", "bare", "all"] = "final"


class _Given:
    """Problems at hand, with a verifier of answers."""

    def __init__(self, problems: Sequence[Problem], verifier: Any) -> None:
        self._problems, self._verifier = problems, verifier

    def problems(self) -> Sequence[Problem]:
        return self._problems

    def answer(self, problem: Problem, response: str) -> str | None:
        return extract_answer(response, self._verifier.extract)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._verifier, name)


def load_task(task: str | type | Iterable[Problem], /, *, check: bool = True, **options: Any) -> Task:
    """The task that `task` names: a registered name ("countdown"; `reasonloop tasks list` shows all), a file of problems
    (alone they are test problems; `train=` names some to train on), `module:Class`, or a task class of yours, with its
    options behind it or by keyword. Or a list of Problems, each with its split, whose answers are compared by `verifier`
    ("math", "numeric" or "exact").

        task = reasonloop.load_task("countdown?train=256&test=64")
        task = reasonloop.load_task("file", train="train.parquet", test="test.jsonl", verifier="math")
        task = reasonloop.load_task(Multiples, train=40)
        task = reasonloop.load_task([reasonloop.Problem(id="1", prompt="2 + 2 =", answer="4")], verifier="numeric")

    `verify_deadline` (seconds a response, 5) and `verify_workers` (processes, 1) are options, too. `check=False` leaves
    out the check that all gold answers verify as right.

    Raises InputError for a name, an option or a problem that isn't right. A class must stand in a file, so that the
    verifier's workers can import it; a script that defines one needs `if __name__ == "__main__":` around its work.
    """
    if not isinstance(task, str | type) and isinstance(task, Iterable):
        found = list(task)
        if not found:
            raise InputError(
                "load_task: an empty list; expected Problems (reasonloop.Problem(id=..., prompt=..., answer=...))"
            )
        loaded = Task(validated(TaskConfig, {"name": "problems", **options}, "problems"), found)
        if check:
            loaded.check()
        return loaded
    if isinstance(task, str):
        name, given = parse_task_spec(task)
        twice = sorted(given.keys() & options.keys())
        if twice:
            raise InputError(f"task {task!r}: {twice[0]!r} is given twice")
        options = {**given, **options}
    else:
        name = target_of(task)
    task_target(name)  # an unknown name is no matter of the options
    config = validated(TaskConfig, {"name": name, **options}, f"task {name!r}")
    loaded = Task(config)
    if check:
        loaded.check()
    return loaded


def target_of(own: Any) -> str:
    """A class or function of the user's own as `module:name`, by which a process that starts anew finds it.

    Raises InputError for one that it can't find: defined in a notebook, in a function, or a lambda.
    """
    module, name = getattr(own, "__module__", None), getattr(own, "__qualname__", None)
    if not module or not name:
        raise InputError(f"{own!r}: expected a class, or its name as module:Class")
    if module == "__main__":
        file = getattr(sys.modules["__main__"], "__file__", None)
        module = Path(file).stem if file and Path(file).suffix == ".py" else ""
    if not module or "<" in name:
        raise InputError(
            f"{name}: defined in a notebook, a shell or a function, where other processes can't import it; expected it at "
            "the top of a file (in a notebook a cell that begins with %%writefile own.py), named as "
            f"own:{name.split('.')[-1]}"
        )
    return f"{module}:{name}"


def expect_task(where: str, task: object) -> None:
    """Raises InputError for what is no task: its name, say."""
    if not isinstance(task, Task):
        call = f"reasonloop.load_task({task!r})" if isinstance(task, str | type) else "reasonloop.load_task(...)"
        raise InputError(f"{where}: the task is a {type(task).__name__}; expected {call}")


def problems_of(task: Task | None, problems: Iterable[Problem] | None) -> Sequence[Problem]:
    """The problems to work on: those given, else the task's training problems. Raises InputError unless each is a Problem,
    and there once."""
    if problems is None and task is None:
        raise InputError("no problems: without a task expected some (reasonloop.Problem(id=..., prompt=...))")
    if isinstance(problems, Problem):
        raise InputError("problems: got a Problem; expected a list of them")
    found = list(problems) if problems is not None else task.train if task is not None else []
    seen: set[str] = set()
    for problem in found:
        if not isinstance(problem, Problem):
            got = "dict" if isinstance(problem, Mapping) else type(problem).__name__
            raise InputError(f"problems: got a {got}; expected reasonloop.Problem(id=..., prompt=..., answer=...)")
        if problem.id in seen:
            raise InputError(
                f"problem {problem.id} is given twice: its responses would be the same; expected another step"
            )
        seen.add(problem.id)
    return found
