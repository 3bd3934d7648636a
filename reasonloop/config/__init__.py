"""Recipes: their options, read and checked. Free of torch."""

from reasonloop.config.average import Average
from reasonloop.config.exploration import Exploration, Judge
from reasonloop.config.explorer import Explorer, Finetuner
from reasonloop.config.lora import Lora, LoraSettings
from reasonloop.config.own_code import own_code
from reasonloop.config.plan import Planned
from reasonloop.config.recipe import (
    Recipe,
    bundled_recipes,
    dumps,
    flat,
    load,
    of_run,
    parse,
    recipe_file,
    stored,
    stored_recipe,
)
from reasonloop.config.scale import Scale, dealt
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
    Training,
)

__all__ = [
    "Average",
    "EngineOptions",
    "Evaluation",
    "Exploration",
    "Explorer",
    "Finetuner",
    "Judge",
    "Lora",
    "LoraSettings",
    "Model",
    "Optimizer",
    "Planned",
    "Ppo",
    "Recipe",
    "RewardFunction",
    "Rft",
    "Rl",
    "Rloop",
    "Rlsp",
    "Sampling",
    "Scale",
    "Section",
    "Sft",
    "TaskConfig",
    "Track",
    "Training",
    "bundled_recipes",
    "dealt",
    "dumps",
    "flat",
    "load",
    "of_run",
    "own_code",
    "parse",
    "recipe_file",
    "stored",
    "stored_recipe",
    "validated",
]
