"""What the tests of the sandbox share."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from reasonloop.errors import InputError
from reasonloop.records import Judgement, Verdict
from reasonloop.verify.sandbox.sandbox import Sandbox, require_sandbox

try:
    require_sandbox()
    REFUSED = ""
except InputError as error:
    REFUSED = str(error)
needs_namespaces = pytest.mark.skipif(bool(REFUSED), reason=REFUSED)
REPOSITORY = Path(__file__).parents[2]


def judge(sandbox: Sandbox, program: str, tests: str, **options: object) -> Judgement:
    return sandbox.judge(textwrap.dedent(program), textwrap.dedent(tests), **options)


def told(sandbox: Sandbox, body: str) -> str:
    """What a function with this body returns inside, as text; its exception if it raises one."""
    program = f"def told():\n{textwrap.indent(textwrap.dedent(body).strip(), '    ')}\n"
    found = judge(sandbox, program, "value = told()\nraise LookupError(repr(value))")
    assert found.verdict is Verdict.WRONG, found
    return found.detail


def descendants(process: int) -> set[int]:
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return {int(child) for child in children}.union(*(descendants(int(child)) for child in children))


def usable(sandbox: Sandbox) -> bool:
    return judge(sandbox, "def f(n): return n + 1", "assert f(1) == 2").verdict is Verdict.RIGHT
