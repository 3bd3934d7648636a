"""`reasonloop sample`: what a model says to a task's problems, and what the verifier makes of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from reasonloop.evaluation.standalone import Opened, opened, recipe_of
from reasonloop.evaluation.texts import text_row
from reasonloop.records import Group, Place, Rollout, Verdict
from reasonloop.tasks import gold_response
from reasonloop.text import readable, visible

if TYPE_CHECKING:
    from rich.console import Console

COLOURS = {Verdict.RIGHT: "green", Verdict.WRONG: "red", Verdict.UNPARSEABLE: "yellow"}


def sample_model(
    model: str, task: str | None, problems: int, samples: int | None, split: str, as_json: bool, overrides: list[str]
) -> None:
    """Prints the responses to the first `problems` of a split: those that an evaluation samples first.

    As text, or as JSON lines, a problem each. A run folder brings its own task and options. `samples`: None is 4, or 1 for
    greedy decoding.
    """
    recipe = recipe_of("sample", model, task, samples, overrides)
    from rich.console import Console

    console = Console(highlight=False, markup=False, soft_wrap=True)
    seen: list[Rollout] = []
    with opened(model, recipe, split, problems, gold=False) as found:
        for asked in found.prompts:
            (group,) = found.sampler.sample([asked], recipe.eval.samples, Place("eval", f"eval/{split}"))
            if as_json:
                sys.stdout.write(_line(found, group) + "\n")
                sys.stdout.flush()
            else:
                _print(console, found, group)
            seen += group.rollouts
    if not as_json:
        console.print(_summary(seen, recipe.sampling.max_tokens))


def _line(found: Opened, group: Group) -> str:
    """A problem and its responses as one JSON object."""
    problem = group.problem
    about = {
        "id": problem.id,
        "split": problem.split,
        "prompt": found.codec.decode_whole(group.prompt_tokens),
        "answer": _gold(found, group),
    }
    rows = map(text_row, group.rollouts)
    responses = [{key: row[key] for key in row if key != "sample" and row[key] is not None} for row in rows]
    return json.dumps({**about, "responses": responses})


def _print(console: Console, found: Opened, group: Group) -> None:
    console.rule(visible(f"{group.problem.id} ({group.problem.split})"), align="left")
    console.print("prompt", style="dim")
    console.print(_indented(found.codec.decode_whole(group.prompt_tokens)), style="cyan")
    console.print("gold answer", style="dim")
    console.print(_indented(_gold(found, group)))
    for rollout in group.rollouts:
        told = f"{rollout.verdict}: {rollout.detail}" if rollout.detail else str(rollout.verdict)
        told += f", score {rollout.score:g}" if rollout.score is not None else ""
        size = f"{rollout.length} tokens" + (", cut off" if rollout.finish == "length" else "")
        console.print(f"response {rollout.sample + 1}, {size}: ", style="dim", end="")
        console.print(visible(told), style=COLOURS.get(rollout.verdict, "magenta"))
        console.print(_indented(rollout.text))
    console.print()


def _gold(found: Opened, group: Group) -> str:
    """The gold answer, or where the problem has none a response that the verifier takes."""
    return group.problem.answer or gold_response(found.task, group.problem) or ""


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in readable(text).split("\n"))


def _summary(rollouts: Sequence[Rollout], most: int) -> str:
    right = sum(rollout.right for rollout in rollouts)
    cut = sum(rollout.finish == "length" for rollout in rollouts)
    told = f"{right} of {len(rollouts)} responses are right"
    return told + (f"; {cut} {'was' if cut == 1 else 'were'} cut off at sampling.max_tokens = {most}" if cut else "")
