"""What is seen of a recipe before any work: a length that the model can't reach, and choices that are probably none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reasonloop.config import Recipe
from reasonloop.errors import InputError
from reasonloop.policy.codec import Codec
from reasonloop.policy.loading import context_of, has_chat_template, kind_of
from reasonloop.records import Problem
from reasonloop.tasks import Task
from reasonloop.tasks.registry import task_class

PLAIN = frozenset(
    "axk2 bailing_hybrid bamba bart bert big_bird bigbird_pegasus blenderbot blenderbot-small bloom camembert "
    "data2vec-text deepseek_v32 deepseek_v4 doge dory dots3_note dots3_note_text electra ernie falcon falcon_h1 "
    "falcon_mamba glm_moe_dsa gpt_neo gpt_neox_japanese granitemoehybrid hy_v4 inkling2_loop_text inkling2_text "
    "inkling_text jamba kimi_linear lara_mini lfm2 lfm2_moe lfm3 llama4 llama4_text mamba mamba2 marian mbart "
    "megatron-bert minimax modernbert-decoder mpt mvp nemotron nemotron_h olmo_hybrid openai-gpt pegasus qwen3_5 "
    "qwen3_5_moe qwen3_5_moe_text qwen3_5_text qwen3_next recurrent_gemma rembert roberta roberta-prelayernorm "
    "roc_bert roformer rwkv stablelm trocr xglm xlm-roberta xlm-roberta-xl xlstm zamba zamba2 zaya".split()
)
"""transformers' model types that were seen on the plain path (policy/plain.py). Each model is looked at when it is loaded,
whatever its type."""


def plain_path(model: str) -> list[str]:
    """A line where the type of a model, as its files say it, is one that isn't packed: before its weights are there."""
    kind = kind_of(model)
    if kind not in PLAIN:
        return []
    return [
        f"model type {kind}: it takes the plain path, its own forward pass without shared prompts, several times as slow as "
        "packed; docs/models.md"
    ]


def check_length(model: str, most: int) -> None:
    """Raises InputError unless the model's context has room for a prompt beside `most` tokens of a response, where its
    files say how long it is: before weights are loaded, or gold answers verified."""
    context = context_of(model)
    if context is not None and most >= context:
        raise InputError(
            f"sampling.max_tokens = {most}: with its prompt a response is more than the model's context of {context}; "
            f"expected at most {context} less the tokens of the longest prompt: sampling.max_tokens={context // 2}, say"
        )


def notes(recipe: Recipe, task: Task, problems: Sequence[Problem] | None) -> list[str]:
    """What a reader should know before a run of the recipe, a line each. `problems`: None where they aren't known yet."""
    plain = plain_prompts(recipe.model.source, recipe.task.name, recipe.task.options, problems)
    return [*plain, *unused_probe(recipe, task, problems or ())]


def told_of_text(codec: Codec, problems: Sequence[Problem], stop: Sequence[str]) -> list[str]:
    """What a model's tokenizer does that its user may not know of, a line each: where prompts end, and responses."""
    first = next((problem for problem in problems if problem.messages is not None), None)
    return [*(codec.template_notes(first) if first else []), *codec.end_notes(stop)]


def plain_prompts(
    model: str,
    task: str,
    options: Mapping[str, Any],
    problems: Sequence[Problem] | None,
    how: str = 'task.format = "chat"',
) -> list[str]:
    """A line where a model with a chat template is asked in plain text, and the task could do otherwise (`how`) and wasn't
    told which."""
    known = getattr(getattr(task_class(task), "Options", None), "model_fields", {})
    if "format" not in known or "format" in options or known["format"].default != "plain":
        return []
    asked = problems is None or any(problem.prompt is not None for problem in problems)
    if not asked or not has_chat_template(model):
        return []
    return [f"the model has a chat template, the task's prompts are plain text: {how} uses it"]


def unused_probe(recipe: Recipe, task: Task, problems: Sequence[Problem]) -> list[str]:
    """A line where training problems are held out that nothing asks."""
    held_out = sum(problem.split == "probe" for problem in problems)
    asked = recipe.rl.probe_every or recipe.eval.split == "probe"
    if asked or not held_out or not hasattr(task, "files") or not isinstance(recipe.task.options.get("probe"), int):
        return []
    return [
        f"task.probe = {held_out}: so many training problems are held out for nothing: rl.probe_every (for rl.keep_best and "
        'rloop.adaptive, too) and eval.split = "probe" would ask them; task.probe = 0 trains on them'
    ]
