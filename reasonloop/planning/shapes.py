"""Shapes of models that plans are made for where the model isn't at hand: as their published config.json has them. Free of
torch."""

from __future__ import annotations

from typing import Any

from reasonloop.policy.shape import Shape

PUBLISHED: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2.5-Math-7B": {
        "model_type": "qwen2",
        "hidden_act": "silu",
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
    },
}
"""By the hub's name"""


def published(source: str) -> Shape | None:
    """Of a model of the hub, at any of its revisions; None where it isn't known here."""
    config = PUBLISHED.get(source.removeprefix("hf:").partition("@")[0])
    return Shape.of(config) if config else None
