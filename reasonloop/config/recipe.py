"""The recipe: TOML in, resolved TOML out; free of torch.

`load(path, overrides)` reads a recipe file, lays `section.key=value` overrides over it and checks it whole. Unknown keys
are refused with the nearest name.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from reasonloop.config.average import Average
from reasonloop.config.exploration import Exploration
from reasonloop.config.explorer import Explorer, Finetuner
from reasonloop.config.lora import Lora
from reasonloop.config.plan import Planned
from reasonloop.config.ranks import Ranks
from reasonloop.config.scale import Scale
from reasonloop.config.section import Section, validated
from reasonloop.config.sections import (
    EngineOptions,
    Evaluation,
    Model,
    Optimizer,
    Ppo,
    RewardFunction,
    Rft,
    Rl,
    Rloop,
    Rlsp,
    Sampling,
    Sft,
    TaskConfig,
    Track,
)
from reasonloop.errors import InputError
from reasonloop.files import RECIPES, bundled_recipes, read_toml
from reasonloop.written.known import check

GONE = {
    "processes": "gone; one process samples with all `threads`",
    "sampling.slots": "moved to engine.slots",
    "rl.pass_k": 'now part of rl.advantage = "pass@K"',
    "ppo.critic": "gone; the critic is a copy of the policy",
    "ppo.gamma": "gone; tokens are not discounted",
    "ppo.value_clip": "gone; it is 0.2",
    "ppo.value_coef": "gone; critic and policy share nothing that it would weigh",
    "ppo.whiten": "gone; advantages are always whitened",
    "exploration.alpha_schedule": "gone; the weight goes linearly to exploration.alpha_end, where that is set",
    "exploration.ngram": "gone; it is 4",
    "exploration.judge.concurrency": "gone; it is 16",
    "exploration.judge.retries": "gone; it is 3",
    "exploration.judge.backoff_seconds": "gone; it is 1",
    "rloop.weight_clip": "gone; it is 2",
    "rft.warmup": "gone; it is 0.05",
    "eval.probe_problems": "gone; all probe problems are asked",
}
"""Options that older recipes have, and what became of them"""


REWARD_PARTS = ("outcome", "exploration", "overlong", "kl")
"""The parts of a reward that are ours"""


class Recipe(Section):
    """A whole run."""

    method: str = "rloop"
    """sft, rl (vanilla RL), rloop, rlsp, or a `Method` of yours as `module:NAME`."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Every random draw of the run is a function of this seed and its own address."""
    threads: int = Field(0, ge=0, le=1024)
    """CPU threads for torch. 0: all cores. Part of the result: bytes are the same for the same number only."""
    checkpoint_seconds: float = Field(60.0, ge=0, allow_inf_nan=True)
    """Write a checkpoint when so much time has passed since the last one. 0: after every step."""
    keep_checkpoints: bool = False
    """Keep the policies of all stages in RUN/checkpoints. A finished run has its product alone, RUN/model, and none of those
    on the way to it."""
    model: Model = Model()
    task: TaskConfig = TaskConfig()
    sampling: Sampling = Sampling()
    engine: EngineOptions = EngineOptions()
    optimizer: Optimizer = Optimizer()
    lora: Lora = Lora()
    sft: Sft = Sft()
    rl: Rl = Rl()
    rewards: dict[str, RewardFunction] = Field(default_factory=dict)
    """Rewards beside the outcome, by name."""
    ppo: Ppo = Ppo()
    exploration: Exploration = Exploration()
    rlsp: Rlsp = Rlsp()
    rloop: Rloop = Rloop()
    scale: Scale = Scale()
    rft: Rft = Rft()
    explorer: Explorer = Explorer()
    finetuner: Finetuner = Finetuner()
    average: Average = Average()
    eval: Evaluation = Evaluation()
    ranks: Ranks = Ranks()
    track: Track = Track()
    plan: Planned = Planned()

    @field_validator("rewards", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        for name, table in value.items() if isinstance(value, dict) else ():
            if name in REWARD_PARTS:
                known = ", ".join(REWARD_PARTS)
                raise ValueError(f"{name!r}: the reward has a part of this name ({known}); expected another name")
            if not re.fullmatch("[A-Za-z][A-Za-z0-9_]{0,39}", name):
                raise ValueError(f"{name!r}: expected a name of letters, digits and _ (at most 40, a letter first)")
            if not isinstance(table, dict | RewardFunction):
                raise ValueError(f"{name!r}: expected a table under a name of yours, such as [rewards.format]")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.rl.updates_per_step > self.rl.problems_per_step:
            raise ValueError(
                f"rl.updates_per_step = {self.rl.updates_per_step} must not exceed "
                f"rl.problems_per_step = {self.rl.problems_per_step}"
            )
        if self.rl.group_size < 2 and self.rl.objective != "ppo":
            raise ValueError(f"rl.group_size = {self.rl.group_size}: group advantages need at least 2")
        if self.rl.objective == "ppo" and self.rl.advantage is not None:
            raise ValueError(f"rl.advantage = {self.rl.advantage!r}: ppo has its critic's advantages; expected unset")
        if self.rl.advantage is not None and self.rl.advantage.partition("@")[0] in ("maxrl", "pass"):
            beside = [
                name
                for name, used in (
                    ("rl.overlong_buffer", self.rl.overlong_buffer),
                    ("rl.kl_in = 'reward'", self.rl.kl_coef and self.rl.kl_in == "reward"),
                    ("exploration", self.exploration.form != "none"),
                    ("[rewards]", self.rewards),
                )
                if used
            ]
            if beside:
                raise ValueError(
                    f"rl.advantage = {self.rl.advantage!r} is for outcomes alone; {beside[0]} adds to them"
                )
            if int(self.rl.advantage.partition("@")[2] or 1) > self.rl.group_size:
                raise ValueError(
                    f"rl.advantage = {self.rl.advantage!r} must not exceed rl.group_size = {self.rl.group_size}"
                )
        if self.sft.experts_of and self.sft.demonstrations:
            raise ValueError("sft.demonstrations counts the task's own; with sft.experts_of it must be 0")
        if self.rl.overlong_buffer >= self.sampling.max_tokens:
            raise ValueError(
                f"rl.overlong_buffer = {self.rl.overlong_buffer} must be smaller than "
                f"sampling.max_tokens = {self.sampling.max_tokens}"
            )
        asked = {"eval.samples": self.eval.samples} | (
            {"eval.probe_samples": self.eval.probe_samples} if self.rl.probe_every else {}
        )
        for key, samples in asked.items() if self.eval.temperature == 0 else ():
            if samples > 1:
                raise ValueError(
                    f"{key} = {samples}: with eval.temperature = 0 all responses to a problem are one; expected 1"
                )
        if self.rl.keep_best and not self.rl.probe_every:
            raise ValueError("rl.keep_best needs rl.probe_every > 0")
        if self.rloop.adaptive and not self.rl.probe_every:
            raise ValueError("rloop.adaptive needs rl.probe_every > 0")
        options = flat(self.model_dump(mode="json"))
        for name, outside in (("explorer", self.explorer), ("finetuner", self.finetuner)):
            outside.check_places(options, f"{name}.command")
        return self

    @property
    def elsewhere(self) -> str:
        """The option that has the method's own explorations made elsewhere, where nothing but their rollouts comes back; ""
        where they are made here."""
        return "explorer.command" if self.explorer.command else "scale.branches" if self.scale.branches > 1 else ""

    def of_branch(self, number: int) -> Recipe:
        """What one of several explorations side by side explores with, by its number from 1. Raises InputError where
        `scale.vary` makes no recipe of it."""
        overrides = self.scale.overrides(number)
        if not overrides:
            return self
        return parse(tomllib.loads(dumps(self)), [*overrides], f"scale.vary, branch {number}")

    @property
    def eval_sampling(self) -> Sampling:
        """The distribution that evaluations sample from."""
        if self.eval.temperature is None:
            return self.sampling
        return self.sampling.untruncated(self.eval.temperature)


def recipe_file(path: Path) -> Path:
    """The file that `run` is asked for: a recipe's own, or by its name alone one of those that come with the package.

    What isn't there is given back as it is: `load` says so.
    """
    bundled = RECIPES / f"{path}.toml"
    named = not path.is_absolute() and ".." not in path.parts and len(path.parts) <= 2
    return bundled if not path.is_file() and named and bundled.is_file() else path


def load(path: Path, overrides: list[str] | None = None) -> Recipe:
    """The recipe in the TOML file `path` with `section.key=value` overrides laid over it.

    Raises InputError naming the file and the key (and the nearest known one), or the override.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        names = bundled_recipes()
        near = difflib.get_close_matches(path.stem, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"{path}: no such recipe file; {hint}bundled, by name: {', '.join(names)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a recipe: {error}") from None
    except (ValueError, RecursionError) as error:  # not TOML, or numbers and nesting beyond what can be read
        raise InputError(f"{path}: not valid TOML: {error}") from None
    return parse(data, overrides or [], str(path))


def parse(data: dict[str, Any], overrides: list[str], where: str) -> Recipe:
    """The recipe in `data` with the overrides laid over it; `where` names its source in errors."""
    for override in overrides:
        _apply(data, override)
    gone = next((key for key in flat(data) if key in GONE), None)
    if gone is not None:
        raise InputError(f"{where}: unknown key {gone!r}: {GONE[gone]}")
    return validated(Recipe, data, where)


def dumps(recipe: Recipe, extra: dict[str, Any] | None = None) -> str:
    """The resolved recipe as TOML; `extra` tables (the versions it ran on) follow it."""
    import tomli_w

    return tomli_w.dumps({**recipe.model_dump(mode="json", exclude_none=True), **(extra or {})})


def _apply(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise InputError(f"override {override!r}: expected section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        value = text  # a bare word is a string, so that model.path=some/folder needs no quotes
    table = data
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise InputError(f"override {override!r}: {part!r} is a value, not a section")
    table[parts[-1]] = value


def stored(run: Path) -> dict[str, Any]:
    """A run's config.toml: its resolved recipe, and what it ran on or was imported from. Raises InputError where it can't be
    read, and RunError where it isn't as the run has written it."""
    path = run / "config.toml"
    check(path)
    return read_toml(path)


def of_run(run: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a run, with overrides laid over it; see `stored` and `parse`."""
    return parse(stored_recipe(stored(run)), list(overrides), str(run / "config.toml"))


def stored_recipe(table: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe in a config.toml's content, without what it ran on or was imported from."""
    return {key: value for key, value in table.items() if key not in ("ran_on", "imported")}


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A recipe's options by dotted key."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return found
