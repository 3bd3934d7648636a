"""The word-level tokenizer of the bundled Countdown model: one token a word, one word a number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reasonloop.tasks.countdown.search import MAX_VALUE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS, UNK = "<pad>", "<bos>", "<eos>", "<unk>"


def words(max_value: int = MAX_VALUE) -> list[str]:
    """Every word of prompts and traces, in token id order: specials, numbers 0..max_value, signs, words."""
    numbers = [str(n) for n in range(max_value + 1)]
    return [PAD, BOS, EOS, UNK, *numbers, *"+-*/()=;:", "from", "no", "back", "yes", "answer"]


def build_tokenizer(max_value: int = MAX_VALUE) -> PreTrainedTokenizerFast:
    """A tokenizer over `words(max_value)`.

    Encoding puts <bos> in front (unless add_special_tokens=False) and never appends <eos>; decoding joins words with
    single spaces, so that decode(encode(text)) == text for every prompt and trace.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(words(max_value))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, vocabulary[BOS])]
    )
    # No decoder: the library then joins tokens with single spaces, and drops skipped special tokens before it joins.
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )
