"""Tokenizers of the three kinds there are, and tiny models with them: words, bytes in pairs, and pieces with bytes for the
rest."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from tiny_models import tiny_model, tiny_policy
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from reasonloop.policy.policy import Policy

SAID = [
    "the answer is <answer>42</answer> and no more",
    "füü 🙂🙃 ≤ 3 </answer>\n\n",
    "日本語 answer: über ; </s> \\boxed{7}",
]
KINDS = ("words", "bytes", "pieces")


@functools.cache
def policy_of(kind: str, seed: int = 0) -> Policy:
    """A random model whose end of sequence is one of its tokens like any other: likely enough, and often late."""
    if kind == "words":
        return tiny_policy("llama", seed)
    tokenizer = byte_level() if kind == "bytes" else byte_fallback()
    ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": None, "pad_token_id": None}
    # a few embeddings more than tokens, as padded vocabularies have
    return Policy(tiny_model("llama", seed, vocab_size=len(tokenizer) + 3, **ends), tokenizer)


def byte_level() -> PreTrainedTokenizerFast:
    """As GPT-2's: every byte is a token, and pairs that are frequent are, too, across characters as well."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    core.train_from_iterator(SAID, trainer)
    return _fast(core)


def byte_fallback() -> PreTrainedTokenizerFast:
    """As Llama 2's: pieces with ▁ for a space, single bytes for what has none, the text's first space stripped."""
    pieces = [
        "<eos>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        *"answerioth<>/:42",
        "▁the",
        "▁answer",
        "</",
        "</an",
    ]
    pieces += ["swer", ">▁", "▁▁", "r>", "ü"]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    core = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    core.decoder = decoders.Sequence(steps)
    return _fast(core)


def _fast(core: Any) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, clean_up_tokenization_spaces=False)
    tokenizer.add_special_tokens({"eos_token": "<eos>"})
    return tokenizer


def first_stop(policy: Policy, tokens: np.ndarray, texts: tuple[str, ...]) -> int | None:
    """How many tokens it takes until the decoded text has one of the texts: the definition, a prefix after the other."""
    said = (policy.codec.decode(tokens[:count]) for count in range(1, len(tokens) + 1))
    return next((i for i, text in enumerate(said, 1) if any(stop in text for stop in texts)), None)
