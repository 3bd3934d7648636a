"""Your problems and your verifier: `my_task:MyTask` in recipe.toml."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from reasonloop.records import Judgement, Problem, Verdict

HERE = Path(__file__).parent


class MyTask:
    """Make a target from all of the given numbers, each used once. Change it into a task of yours.

    The arguments of `__init__` are options: `[task] limit = 10` in the recipe, `task.limit=10` on the command line.
    """

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit

    def problems(self) -> Sequence[Problem]:
        """All problems. `train` ones are sampled from; `test` ones only tell how it came out. An id must never change."""
        return [
            Problem(
                id=row["id"],
                split=split,
                # What the model gets: text that it continues. For an instruct model write, in place of `prompt`,
                #   messages=({"role": "user", "content": "..."},),
                prompt=f"{row['target']} from {' '.join(map(str, row['numbers']))} :",
                answer=row["answer"],
                meta={"numbers": row["numbers"], "target": row["target"]},  # whatever else the verifier needs
            )
            for split in ("train", "test")
            for row in self._rows(HERE / f"{split}.jsonl")
        ]

    def _rows(self, file: Path) -> list[dict]:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        return rows[: self.limit or None]

    def verify(self, problem: Problem, response: str) -> Judgement:
        """Is this response right? It runs in a process that is killed when it is late; an exception is `crashed`.

        The text of a Judgement says what was read: `reasonloop sample` and the report show it. A third value, `score=0.5`
        (0 to 1), is partial credit.
        """
        said, found, answer = response.rpartition("answer")
        answer = answer.strip()
        if not found or "answer" in said:  # several guesses must not pay
            return Judgement(Verdict.UNPARSEABLE, "no answer, or more than one")
        if not re.fullmatch(r"[\d\s+\-*/()]{1,100}", answer) or "**" in answer or "//" in answer:
            return Judgement(Verdict.UNPARSEABLE, f"no expression: {answer[:50]}")
        if sorted(map(int, re.findall(r"\d+", answer))) != sorted(problem.meta["numbers"]):
            return Judgement(Verdict.WRONG, f"{answer} has other numbers")
        try:
            value = eval(answer)  # nothing but numbers and + - * / ( ) gets here
        except (SyntaxError, TypeError, ZeroDivisionError):
            return Judgement(Verdict.UNPARSEABLE, f"no expression: {answer}")
        right = abs(value - problem.meta["target"]) < 1e-9
        return Judgement(Verdict.RIGHT if right else Verdict.WRONG, f"{answer} = {value:g}")

    def gold_response(self, problem: Problem) -> str:
        """A response that must verify as right; `reasonloop tasks check my_task:MyTask` tries each."""
        return f"answer {problem.answer}"

    def answer(self, problem: Problem, response: str) -> str | None:
        """What the response answers, so that evaluations can let responses vote (maj@n). May be left out."""
        return response.rpartition("answer")[2].strip() if "answer" in response else None
