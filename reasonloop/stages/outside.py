"""Stages that a command of the user's own does: another trainer explores, or fine-tunes, in place of ours."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from reasonloop.errors import InputError, RunError
from reasonloop.files import replace_folder
from reasonloop.imports.judging import judged, lines
from reasonloop.imports.reading import Asked, Reading, find_rollouts
from reasonloop.imports.scores import Agreement
from reasonloop.policy.adapter_folders import is_adapter
from reasonloop.policy.loading import resolve
from reasonloop.policy.policy import Policy
from reasonloop.records import Place
from reasonloop.runs import handed
from reasonloop.runs.command import Command
from reasonloop.runs.dry import RL_ROLLOUT, TRAINED_EXAMPLE
from reasonloop.runs.session import Session
from reasonloop.runs.stages import Arm, Budget, Examples, Explored, Source
from reasonloop.stages.common import leave_as_it_was, spent_before
from reasonloop.stages.exploration import ExplorationState, rollout_metrics
from reasonloop.store.for_trainers import write_experts, write_problems
from reasonloop.store.sources import write_sources

STEP_FILES = {"prime-rl": "rollouts/step_*", "trl": "completions_*.parquet"}
"""What a trainer makes one of for each step, so that a reader sees it work; JSON Lines else"""
ASKED = 8
"""Prompts by which tokenizers are compared"""


class CommandExplorer:
    """An exploration by `explorer.command`: its rollouts are imported when it has ended, as those of `place.branch`."""

    def __init__(self, run: Session) -> None:
        self.run = run

    def explore(self, start: Source, place: Place, arm: Arm, budget: Budget) -> Explored:
        """See `Explorer.explore`."""
        run, recipe, folder = self.run, self.run.recipe, self.run.folder.path.absolute()
        checkpoint = run.folder.checkpoint(place)
        state = ExplorationState.of(checkpoint)
        if state is None or not state.done:
            values = handed.explorer_values(recipe, folder, budget.until)
            if not values["problems"].is_file():
                write_problems(values["problems"], run.problems["train"], recipe.task.name)
            words = handed.words_of(recipe, "explorer", folder, place, start_folder(run, start, place), values)
            command = command_of(run, "explorer", words, place)
            run.let_go()
            command.run(self._look(command, place, arm), lambda: run.stopping, run.progress.say)
            state = self._import(command, place, arm, budget.until)
            checkpoint.skip(state.to_json())
            run.progress.advance(budget.until * RL_ROLLOUT)
            drop_start(run, place)
            run.stop_point()
        out = handed.stage_folder(folder, place) / "out"
        model = recipe.explorer.model
        return Explored(handed.handed_back(out, model, "explorer.command") if model else None, state.rollouts)

    def _look(self, command: Command, place: Place, arm: Arm) -> Callable[[], None]:
        """Shows the steps of which there are rollouts."""
        run, recipe, seen = self.run, self.run.recipe, -1

        def look() -> None:
            nonlocal seen
            found = sum(1 for _ in command.out.rglob(STEP_FILES.get(recipe.explorer.rollouts, "*.jsonl")))
            if found != seen:
                seen = found
                run.folder.set_state(place.name, place.iteration, found)
                run.progress.step(arm.label, found, max(found, recipe.rl.steps), iteration=place.iteration)

        return look

    def _import(self, command: Command, place: Place, arm: Arm, until: int) -> ExplorationState:
        """Judges what the command has left and keeps it in the store, a line in metrics.jsonl for each step."""
        run = self.run
        asked = Asked(trainer=run.recipe.explorer.rollouts)
        try:
            reading = find_rollouts([command.out], run.problems["train"], asked, run.codec, command.folder)
        except InputError as error:
            raise RunError(
                f"explorer.command has ended, but its rollouts can't be taken: {error}; with the command or "
                "explorer.rollouts mended the same run goes on (a command that has changed is run again)"
            ) from None
        with reading:
            if not reading.steps:
                raise RunError(
                    f"explorer.command has ended, but {command.out} holds rollouts of evaluations alone; expected those of "
                    "its training, too: with the command mended the same run goes on"
                )
            return self._keep(reading, command, place, arm, until)

    def _keep(self, reading: Reading, command: Command, place: Place, arm: Arm, until: int) -> ExplorationState:
        run, before = self.run, spent_before(self.run, place)
        run.store.take_back(place)
        run.folder.unlog(stage=place.stage, branch=place.branch, iteration=place.iteration)
        agreement, spent = Agreement(reading.scored), 0
        seconds = round(command.seconds / max(1, len(reading.steps)), 3)
        for step in judged(reading, run.verifier, agreement, replace(place, step=0), renumber=True):
            if step.evaluation:
                continue
            own = step.rollouts[0].place
            spent += len(step.rollouts)
            write_sources(run.folder.path, run.store.write(step.rollouts, own), step.sources, run.folder.write)
            known = {"trainer_step": step.step, "rollouts": spent + before, "seconds": seconds}
            run.folder.log(**own.keys, **arm.keys, **known, **rollout_metrics(step.rollouts))
        # a trainer's folder is full of other files
        for line in [*lines(reading, files=False), *agreement.table().lines()]:
            run.progress.say(line)
        if spent != until:
            run.progress.say(
                f"{arm.label}: {spent:,} rollouts came, {until:,} were asked for: the run counts what came"
            )
        return ExplorationState(step=len(reading.steps), rollouts=spent, done=True)


def finetune(
    run: Session, start: Source, place: Place, arm: Arm, examples: Callable[[], Examples], epochs: float
) -> Source:
    """Fine-tuning by `finetuner.command`; see `Stages.finetune`."""
    checkpoint, expected = run.folder.checkpoint(place), run.planned.get(place.name, 0.0)
    state = checkpoint.state()
    if state is not None:
        run.progress.skip(expected)
        return Path(start) if state.get("empty") else checkpoint.folder
    found = examples()
    if not found.pairs:
        leave_as_it_was(run, place)
        return Path(start)
    folder = run.folder.path.absolute()
    run.folder.set_state(place.name, place.iteration)
    values = handed.finetuner_values(folder, place, epochs)
    write_experts(values["experts"] / "train.parquet", run.problems["train"], found.rollouts)
    words = handed.words_of(run.recipe, "finetuner", folder, place, start_folder(run, start, place), values)
    command = command_of(run, "finetuner", words, place)
    run.let_go()
    command.run(lambda: None, lambda: run.stopping, run.progress.say)
    policy = accepted(run, start, handed.handed_back(command.out, run.recipe.finetuner.model, command.what))
    run.folder.unlog(stage=place.stage, branch=place.branch, iteration=place.iteration)
    line = {"examples": len(found), "epochs": epochs, "seconds": round(command.seconds, 3)}
    run.folder.log(**place.keys, **arm.keys, **line)
    checkpoint.save(_Whole(policy), {"step": 1, "done": True}, trainer_state=False)
    run.progress.advance(len(found) * epochs * TRAINED_EXAMPLE)
    drop_start(run, place)
    run.stop_point()
    return checkpoint.folder


def command_of(run: Session, which: str, words: list[str], place: Place) -> Command:
    """The command of `[explorer]` or `[finetuner]` for a stage."""
    options, folder = getattr(run.recipe, which), run.folder.path.absolute()
    own, log = handed.stage_folder(folder, place), folder / "logs" / f"{place.name}.log"
    return Command(f"{which}.command", words, own, log, options.resumes, options.patience_seconds)


def start_folder(run: Session, start: Source, place: Place) -> Path:
    """The start of a stage as a plain Hugging Face folder that stays where it is: its own, or a copy."""
    plain = handed.plain_folder(str(start))
    if plain is not None:
        return plain
    folder = handed.stage_folder(run.folder.path.absolute(), place) / "model"
    if not folder.is_dir():
        if is_adapter(resolve(str(start))):
            run.policy(start).save(folder.with_name("model.partial"))
            replace_folder(folder.with_name("model.partial"), folder)
        else:
            handed.copy_policy(str(start), folder)
    return folder


def drop_start(run: Session, place: Place) -> None:
    """The copy goes when its stage is done."""
    shutil.rmtree(handed.stage_folder(run.folder.path, place) / "model", ignore_errors=True)


def accepted(run: Session, start: Source, folder: Path) -> Policy:
    """The policy that a fine-tuning has left in a folder. Raises RunError unless it can be loaded, has the start's
    tokenizer, finite weights, and others than the start."""
    what = f"finetuner.command has ended, but {folder}"
    before = run.policy(start)
    marks, codec = _marks(before), before.codec
    del before  # two of them need not fit
    if unfit := _not_finite(folder):
        raise RunError(f"{what} has weights that are not finite, {unfit} for one")
    try:
        policy = run.take_policy(folder)
    except InputError as error:
        raise RunError(f"{what} can't be taken: {error}") from None
    asked = run.problems["train"][:ASKED]
    same = policy.codec.tokenizer.get_vocab() == codec.tokenizer.get_vocab() and all(
        np.array_equal(policy.codec.encode_prompt(problem), codec.encode_prompt(problem)) for problem in asked
    )
    if not same:
        raise RunError(
            f"{what} has another tokenizer, or chat template, than {start}; expected the same one (a trainer that adds "
            "tokens to it changes what all prompts and responses are)"
        )
    if _marks(policy) == marks:
        raise RunError(f"{what} has the weights that {start} has; expected them trained")
    return policy


def _not_finite(folder: Path) -> str | None:
    """The name of a weight in a folder that has NaN or infinity in it, if there is one."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                if not torch.isfinite(file.get_tensor(name)).all():
                    return str(name)
    return None


def _marks(policy: Policy) -> list[tuple[str, float, float]]:
    """Of each parameter its name and two sums: the same for the same weights, and no others that training leads to."""
    with torch.no_grad():
        values = ((name, parameter.double()) for name, parameter in policy.model.named_parameters())
        return [(name, float(value.sum()), float(value.square().sum())) for name, value in values]


class _Whole:
    """A policy as `Checkpoint.save` takes it."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def save(self, folder: Path, trainer_state: bool = True, whole: bool = True) -> None:
        self.policy.save(folder)
