"""Tokenizers, as their files have them. transformers is imported by the function that makes one."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

from reasonloop.files import read_object
from reasonloop.policy.asking import alone

_TEXTS = (
    "from 3 + 21 = 24 :",
    "The answer isn't 1,234.5: x^2 - 7 != 0\n\n\tdef f(x):\n    return x**2  # naïve",
    "日本語 über ≤ 🙂 don't",
)
"""What tokenizers of two kinds take apart otherwise"""


def load_tokenizer(folder: Path, trust_remote_code: bool) -> Any:
    """transformers' tokenizer of a folder.

    For some model types AutoTokenizer builds the type's own tokenizer from the vocabulary in tokenizer.json, and leaves the
    rest of that file out: words of a tokenizer of another kind are then lost without a word. Where that gives other tokens
    than the file, the file's are used, and a line on stderr says it.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    found = AutoTokenizer.from_pretrained(folder, **alone(trust_remote_code))
    file = folder / "tokenizer.json"
    rebuilt = type(found).__name__ not in ("TokenizersBackend", "PreTrainedTokenizerFast")
    if not rebuilt or not getattr(found, "is_fast", False) or not file.is_file() or _is_set_otherwise(folder):
        return found
    own = PreTrainedTokenizerFast.from_pretrained(folder, **alone(trust_remote_code))
    if all(_tokens(found, text) == _tokens(own, text) for text in _TEXTS):
        return found
    _tell(folder, type(found).__name__)
    return own


@cache
def _tell(folder: Path, kind: str) -> None:
    """Once a process."""
    print(
        f"model {folder}: AutoTokenizer makes a {kind} of its tokenizer.json, which gives other tokens than that file; the "
        "file's are used here. Whoever loads the product needs them, too: PreTrainedTokenizerFast.from_pretrained",
        file=sys.stderr,
    )


def _is_set_otherwise(folder: Path) -> bool:
    """Whether an option beside tokenizer.json says that its tokens are to be others."""
    config = folder / "tokenizer_config.json"
    return config.is_file() and read_object(config).get("add_prefix_space") is not None


def _tokens(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer(text).input_ids
    return found
