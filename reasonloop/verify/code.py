"""Programs as answers: the code in a response, and the verifier that runs it against tests in a sandbox."""

from __future__ import annotations

import re
from typing import Any

from reasonloop.records import Judgement, Problem, Verdict
from reasonloop.verify.sandbox.limits import Limits
from reasonloop.verify.sandbox.sandbox import Backend, Sandbox

_FENCE = re.compile(r"^[ \t]*(`{3,}+)([^\n`]*+)$", re.MULTILINE)
_LANGUAGE = re.compile(r"[ \t]*([\w+#.-]*)")
_PYTHON = ("", "python", "python3", "py")
# what may stand at the left margin of a program that is a completion, apart from white space
_MARGIN = re.compile(
    r"(?:(?:async\s+)?def|class|import|from|if|for|while|with|try|except|finally|else|elif)\b|[@#)\]}'\"]|"
    r"\w[\w.\[\], ]*(?::[^=\n]+)?=(?!=)"
)


def extract_code(response: str) -> str | None:
    """The program in a response; None if there is none.

    The last fenced block that is marked as Python or not marked at all; a block that isn't closed (a response that was cut
    off) gives None. A response without any fence is the program itself. Indentation is kept.
    """
    block, opened, fence, language = None, None, "", ""
    for match in _FENCE.finditer(response):
        told = _LANGUAGE.match(match[2])
        marked = told[1] if told else ""
        if opened is None:
            opened, fence, language = match.end() + 1, match[1], marked.lower()
        elif len(match[1]) >= len(fence) and not marked:
            if language in _PYTHON:
                block = response[opened : match.start()]
            opened = None
    if opened is not None:
        return None
    if block is None and not fence:
        block = response
    return block if block and block.strip() else None


def extract_completion(response: str) -> str | None:
    """The code with which a response goes on from a prompt that is code; None if there is none.

    Without a fence: everything up to the first line at the left margin that doesn't begin a statement (a definition, an
    import, an assignment, a block), where a model has gone on to something else than code.
    """
    if _FENCE.search(response):
        return extract_code(response)
    kept: list[str] = []
    for line in response.splitlines(keepends=True):
        if kept and line[:1].strip() and not _MARGIN.match(line):
            break
        kept.append(line)
    code = "".join(kept)
    return code if code.strip() else None


class CodeVerifier:
    """RIGHT if the program in the response passes the tests in `Problem.answer` (see `sandbox`).

    `Problem.meta` may have "names" and "support" (see `Sandbox.judge`). Raises InputError for limits that are none.
    """

    def __init__(self, backend: Backend = "namespaces", image: str = "python:3.11-slim", **limits: Any) -> None:
        self.sandbox = Sandbox(Limits(**limits), backend, image)

    def prepare(self) -> None:
        """Start the sandbox. Raises InputError if this machine doesn't allow it."""
        self.sandbox.start()

    def verify(self, problem: Problem, response: str) -> Judgement:
        program = extract_code(response)
        if program is None:
            return Judgement(Verdict.UNPARSEABLE, "no code block that is closed, or no code at all")
        return self.sandbox.judge(program, problem.answer, problem.meta.get("names"), problem.meta.get("support", ""))
