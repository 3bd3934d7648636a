"""Makes the bundled Countdown model's beginning: random weights and the tokenizer, as a Hugging Face folder.

    python -m reasonloop.bundled FOLDER

`reasonloop/bundled/countdown/recipe.toml` then trains it; its product is `reasonloop/bundled/countdown`.
"""

from __future__ import annotations

import sys
from pathlib import Path


def initialise(folder: Path) -> None:
    """A Llama of 1.3 million parameters, seeded, with the Countdown tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from reasonloop.policy.policy import Policy
    from reasonloop.tasks.countdown.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=160,
        intermediate_size=448,
        num_hidden_layers=4,
        num_attention_heads=5,
        num_key_value_heads=5,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Policy(LlamaForCausalLM(config), tokenizer).save(folder)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m reasonloop.bundled FOLDER")
    initialise(Path(sys.argv[1]))
