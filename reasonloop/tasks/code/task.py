"""Programming problems: the verifier that all of them share, and the bundled set."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256
from typing import Any, ClassVar, Literal

from pydantic import Field

from reasonloop.config.section import Section, validated
from reasonloop.records import LONGEST_DEADLINE, Judgement, Problem, Verdict
from reasonloop.tasks.base import SPLITS
from reasonloop.tasks.code.problems import PROBLEMS
from reasonloop.verify.code import extract_code, extract_completion
from reasonloop.verify.sandbox.limits import Limits
from reasonloop.verify.sandbox.sandbox import Sandbox, require_sandbox

_NO_CODE = Judgement(Verdict.UNPARSEABLE, "no code block that is closed, or no code at all")
_ASKED = "Write the function below. Answer with a Python code block that holds all of it.\n\n```python\n{}```"


class CodeOptions(Section):
    """Options of every programming task."""

    format: Literal["plain", "chat"] = "plain"
    """Code that the model goes on with, or a user message that asks for a code block."""
    backend: Literal["namespaces", "docker"] = "namespaces"
    """What keeps a program in. Where namespaces aren't allowed the task refuses to start; docker must be named."""
    image: str = "python:3.11-slim"
    """Docker image with Python >= 3.11 (backend = "docker")."""
    timeout: float = Field(4.0, ge=0.05, le=LONGEST_DEADLINE)
    """Seconds a program may take for its tests; keep it below `task.verify_deadline`, which kills the sandbox too."""
    memory_mib: int = Field(512, ge=64)
    """Memory of a program, all its processes together, MiB; also the address space of each."""
    processes: int = Field(8, ge=1)
    """Processes and threads of a program."""


class CodeTask:
    """Problems whose answer is Python code that is judged by running it against tests in a sandbox.

    With format = "plain" the prompt is the beginning of a program and the response goes on with it; with "chat", and
    whenever a response has a fenced block, the program is the last closed block marked as Python or not marked at all,
    behind the prompt's own code if there is some (imports, helpers). `Problem.answer` is the tests; meta has "names" (the
    program's functions), "support" (code on the tests' side) and "prefix" (code that a program begins with).
    """

    Options: ClassVar[type[CodeOptions]] = CodeOptions
    label = "task code"

    def __init__(self, **options: Any) -> None:
        self.options: Any = validated(self.Options, options, self.label)
        limits = Limits(self.options.timeout, self.options.memory_mib, self.options.processes)
        self._sandbox = Sandbox(limits, self.options.backend, self.options.image)

    def read(self) -> Sequence[Problem]:
        """The problems; read once."""
        raise NotImplementedError

    def problems(self) -> Sequence[Problem]:
        """All problems. Raises InputError if programs can't be run safely on this machine."""
        require_sandbox(self.options.backend, self.options.image)
        return self._problems

    @cached_property
    def _problems(self) -> tuple[Problem, ...]:
        return tuple(self.read())

    def prepare(self) -> None:
        """Start the sandbox, so that no deadline has to wait for it. Raises InputError."""
        self._sandbox.start()

    def quick(self, problem: Problem, response: str) -> Judgement | None:
        """UNPARSEABLE for a response without code; everything else needs the sandbox."""
        return _NO_CODE if self._program(problem, response) is None else None

    def verify(self, problem: Problem, response: str) -> Judgement:
        program = self._program(problem, response)
        if program is None:
            return _NO_CODE
        meta = problem.meta
        return self._sandbox.judge(program, problem.answer, meta.get("names"), meta.get("support", ""))

    def gold_response(self, problem: Problem) -> str:
        return problem.response or ""

    def _program(self, problem: Problem, response: str) -> str | None:
        plain = problem.messages is None
        code = extract_completion(response) if plain else extract_code(response)
        return None if code is None else problem.meta.get("prefix", "") + ("\n" if "```" in response else "") + code

    def problem(
        self, id: str, split: str, begun: str, rest: str, tests: str, names: list[str] | None, **meta: Any
    ) -> Problem:
        """A problem whose program begins with `begun`, which is the prompt, and whose solution goes on with `rest`."""
        chat = self.options.format == "chat"
        begun = begun if begun.endswith("\n") else begun + "\n"
        prompt = None if chat else begun
        return Problem(
            id=id,
            prompt=prompt,
            messages=({"role": "user", "content": _ASKED.format(begun.lstrip("\n"))},) if chat else None,
            answer=tests,
            response=f"```python\n{begun.strip()}\n{rest.rstrip()}\n```" if chat else rest,
            split=split,
            meta={"names": names, "prefix": begun, **meta},
        )


class Code(CodeTask):
    """24 small programming problems of rising difficulty, with their tests and solutions."""

    class Options(CodeOptions):
        probe: int = Field(4, ge=0, le=12)
        """Held-out problems that may steer a run."""
        test: int = Field(8, ge=0, le=12)
        """Held-out problems that are only reported on; the others are for training."""

    def read(self) -> Sequence[Problem]:
        splits = deal([written.name for written in PROBLEMS], self.options.probe, self.options.test)
        return [
            self.problem(f"code-{one.name}", splits[one.name], one.prompt, one.body, one.tests, [one.name])
            for one in PROBLEMS
        ]


def deal(ids: Sequence[str], probe: int, test: int) -> dict[str, str]:
    """The split of each problem, by a hash of its id: `test` of them, then `probe` of them, then the training ones."""
    order = sorted(ids, key=lambda id: sha256(f"split {id}".encode()).digest())
    splits = dict.fromkeys(order, SPLITS[0])
    splits.update(dict.fromkeys(order[:test], SPLITS[2]))
    splits.update(dict.fromkeys(order[test : test + probe], SPLITS[1]))
    return {id: splits[id] for id in ids}
