"""What a stage trains where the recipe has LoRA for it: an adapter beside the weights of the policy that it starts from.

Fine-tuning from a policy that is itself a fine-tuned adapter of the same shape goes on training that one, so that what
comes out stays the same model with one adapter. An exploration always gets a fresh one: its start is then the policy
without it.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

from reasonloop.config import LoraSettings, Recipe
from reasonloop.files import ADAPTER, read_object
from reasonloop.policy import adapters
from reasonloop.policy.adapter_folders import CONFIG, is_adapter
from reasonloop.policy.hub import hub_name
from reasonloop.policy.loading import bundled_names, resolve
from reasonloop.policy.policy import Policy
from reasonloop.records import Place
from reasonloop.runs.checkpoints import Checkpoint
from reasonloop.runs.session import Session
from reasonloop.runs.stages import Source
from reasonloop.written.known import check

LORA = "lora"
"""In a fine-tuning's state: the settings of its adapter"""


def settings_of(recipe: Recipe, place: Place) -> LoraSettings | None:
    """Of the adapter that the stage trains; None where it trains all weights."""
    return recipe.lora.of({"explore": "rl"}.get(place.stage, place.stage))


def policy_of_stage(run: Session, start: Source, place: Place, *, begun: bool) -> Policy:
    """The policy that a stage trains, as its checkpoint (`begun`), or else its start has it."""
    settings, own = settings_of(run.recipe, place), run.folder.checkpoint(place).folder
    if settings is None:
        return run.take_policy(own if begun else start)
    going_on = place.stage != "explore" and _fine_tuned(run, start, settings)
    base = _base_of(run, Path(start)) if going_on else start
    policy = run.take_policy(base)
    policy.adapt(settings, f"{run.recipe.seed}\0{replace(place, step=0).luck}", _told(run, base))
    if begun or going_on:
        adapters.load(policy.model, (own if begun else Path(start)) / ADAPTER)
    return policy


def deliver_adapter(run: Session, policy: Source) -> None:
    """RUN/adapter, where the product is the recipe's model with one adapter; else, where an adapter was trained last, says
    why there is none."""
    source, target = Path(policy) / ADAPTER, run.folder.path / ADAPTER
    if not _is_checkpoint(run, Path(policy)) or not source.is_dir():
        return
    model = run.recipe.model.source
    reason = f"its adapter stands on weights that this run has made, not on {model}"
    if adapters.told_by(source).base == _named(model):
        reason = f"{model} is itself an adapter" if is_adapter(resolve(model)) else ""
    if reason:
        run.progress.say(f"no {target}: {reason}; the product is {run.folder.path / 'model'}")
        return
    if not target.is_dir():
        check(source)
        partial = target.with_name(f"{ADAPTER}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial)
        if model not in bundled_names() and Path(model).exists():  # it is to be found from any working directory
            told = read_object(partial / CONFIG) | {"base_model_name_or_path": str(Path(model).resolve())}
            (partial / CONFIG).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        run.folder.ledger.put_folder(partial, target)


def check_delivered(run: Session) -> None:
    """Raises RunError unless RUN/model and the recipe's model with RUN/adapter, both as their files have them, compute the
    same."""
    folder = run.folder.path
    if not (folder / ADAPTER).is_dir():
        return
    beside = run.take_policy(run.recipe.model.source)
    beside.adapt(adapters.told_by(folder / ADAPTER).settings)
    adapters.load(beside.model, folder / ADAPTER)
    found = adapters.trial(beside.model)
    del beside  # two of them need not fit
    adapters.expect_agreement(adapters.trial(run.policy(folder / "model").model), found, f"{folder}: model and adapter")


def _fine_tuned(run: Session, start: Source, settings: LoraSettings) -> bool:
    """Whether a policy came out of fine-tuning an adapter of this shape."""
    folder = Path(start)
    state = Checkpoint(folder).state() if _is_checkpoint(run, folder) else None
    return (state or {}).get(LORA) == settings.to_json()


def _is_checkpoint(run: Session, folder: Path) -> bool:
    return folder.parent == run.folder.path / "checkpoints"


def _base_of(run: Session, folder: Path) -> Source:
    """What the adapter of a checkpoint stands on."""
    told, model = adapters.told_by(folder / ADAPTER).base, run.recipe.model.source
    return model if told == _named(model) else folder.parent / Path(told).name


def _told(run: Session, base: Source) -> str:
    """A base as an adapter's folder names it: a checkpoint by the way there, anything else as the recipe does."""
    if _is_checkpoint(run, Path(base)):
        return f"../../{Path(base).name}"
    model = run.recipe.model.source
    return _named(model if Path(base) == Path(model) else str(base))


def _named(source: str) -> str:
    """A model of the hub by owner/name@revision, anything else as it stands."""
    return str(hub_name(source) or source)
