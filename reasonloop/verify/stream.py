"""A stream of answers to verify: JSONL in, JSONL out, in order, in bounded memory. Behind `reasonloop verify`."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TextIO

from reasonloop.errors import InputError
from reasonloop.records import LONGEST_DEADLINE, Judgement, Problem
from reasonloop.verify.answers import one_line
from reasonloop.verify.sandbox.limits import BOUNDS
from reasonloop.verify.sandbox.sandbox import require_sandbox
from reasonloop.verify.workers import VerifierPool, VerifierSpec

KINDS = {
    "math": VerifierSpec("reasonloop.verify.verifiers:MathVerifier", {"extract": "bare"}),
    "exact": VerifierSpec("reasonloop.verify.verifiers:ExactVerifier", {"extract": "all"}),
    "numeric": VerifierSpec("reasonloop.verify.verifiers:NumericVerifier", {"extract": "bare"}),
    "code": VerifierSpec("reasonloop.verify.code:CodeVerifier"),
}
IN_FLIGHT = 16
"""Lines per worker that may be read ahead of the verdict to be printed next."""
SANDBOX_MARGIN = 15.0
"""Seconds that a sandbox may take beyond the deadline of its program before its worker counts as lost."""


def run_stream(
    kind: str,
    lines_in: Iterable[str | bytes],
    out: TextIO,
    deadline: float,
    workers: int | None,
    **options: str,
) -> None:
    r"""Write {"verdict": ..., "detail"?: ..., "score"?: ...} for each line {"answer": ..., "gold": ...} of `lines_in`.

    To `out`, in order, each as soon as it and those before it are known, so that a program may talk with this one line by
    line. For "code" the answer is a program and the gold answer Python that calls its functions and asserts. For the others,
    both are texts or numbers; a number is read as Python writes it. For "math" and "numeric" an answer may stand bare
    or in a \boxed{}. A line may have the problem's "prompt", too (does it ask for a percentage, does it list choices?).
    `options`: the verifier's; with extract="final" (or another of `extract.STYLES`) each answer is a whole response.
    Empty lines at the end of the input are ignored. Raises InputError for an unknown kind or option, and for a line that
    is no such object (an empty line before another one, too), naming its number, after the verdicts of all lines before
    it are written.
    """
    if kind not in KINDS:
        raise InputError(f"--kind: got {kind!r}, expected one of {', '.join(KINDS)}")
    spec = KINDS[kind]
    _check_deadline(deadline, *((BOUNDS["timeout"][0], SANDBOX_MARGIN) if kind == "code" else (0.0, 0.0)))
    if options and kind == "code":
        raise InputError(f"--{next(iter(options))}: a program is judged as it stands; expected it with another --kind")
    if "percent" in options and kind == "exact":
        raise InputError("--percent: texts are compared as they stand; expected it with --kind math or numeric")
    spec = VerifierSpec(spec.target, {**spec.options, **options})
    if kind == "code":
        require_sandbox()
        # the sandbox keeps the deadline itself; killing the worker would cost the next program a new one
        spec = VerifierSpec(spec.target, {"timeout": deadline})
        deadline += SANDBOX_MARGIN
    printed: deque[Future[None]] = deque()
    # one printer keeps the order, and prints while this thread waits for a line; the pool is closed before it
    with ThreadPoolExecutor(1) as printer, VerifierPool(spec, workers=workers, deadline=deadline) as pool:
        try:
            empty: tuple[str | bytes, int] | None = None
            for number, line in enumerate(lines_in, start=1):
                if not line.strip():
                    empty = empty or (line, number)
                    continue
                if empty is not None:
                    _parse(*empty)
                answer, problem = _parse(line, number)
                while printed and (printed[0].done() or len(printed) == IN_FLIGHT * (workers or 4)):
                    printed.popleft().result()
                judgement = pool.submit(problem, answer)
                printed.append(printer.submit(_print, judgement, out, printed[-1] if printed else None))
        finally:
            while printed:
                printed.popleft().result()


def _check_deadline(deadline: float, least: float, margin: float) -> None:
    most = LONGEST_DEADLINE - margin
    if not 0 < deadline <= most or deadline < least:
        expected = (
            f"{least:g} to {most:,.0f} seconds" if least else f"more than 0 and at most {most:,.0f} seconds (a day)"
        )
        raise InputError(f"--deadline: got {deadline:g}, expected {expected}")


def _print(judgement: Future[Judgement], out: TextIO, before: Future[None] | None) -> None:
    if before is not None:
        before.result()  # behind a verdict that could not be printed there is none
    judged = judgement.result()
    row: dict[str, str | float] = {"verdict": judged.verdict.value}
    row |= {"detail": judged.detail} if judged.detail else {}
    row |= {"score": judged.score} if judged.score is not None else {}
    out.write(json.dumps(row) + "\n")
    out.flush()


def _parse(line: str | bytes, number: int) -> tuple[str, Problem]:
    expected = 'expected a JSON object with the texts or numbers "answer" and "gold"'
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        start = one_line(line.decode(errors="replace") if isinstance(line, bytes) else line, 60).strip()
        raise InputError(f"line {number}: got {start!r}, which is no JSON ({error}); {expected}") from error
    if not isinstance(row, dict):
        raise InputError(f"line {number}: got a {type(row).__name__}; {expected}")
    for key in ("answer", "gold"):
        if not isinstance(row.get(key), str | int | float) or isinstance(row[key], bool):
            got = f"{key!r} of type {type(row[key]).__name__}" if key in row else f"no {key!r}"
            raise InputError(f"line {number}: got {got}; {expected}")
    prompt = row.get("prompt")
    if not isinstance(prompt, str | None):
        raise InputError(f"line {number}: got 'prompt' of type {type(prompt).__name__}; expected the problem's text")
    return str(row["answer"]), Problem(id=str(number), prompt=prompt or "", answer=str(row["gold"]))
