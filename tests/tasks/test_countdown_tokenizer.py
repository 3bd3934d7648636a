"""The word-level tokenizer gives back every trace, also after saving."""

import pytest

from reasonloop.tasks.countdown.task import Countdown
from reasonloop.tasks.countdown.tokenizer import build_tokenizer, words


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def texts():
    task = Countdown(numbers=(3, 4))
    return [text for pair in task.demonstrations(100, 0, skill=0.2) for text in (pair[0].prompt, pair[1])]


def test_round_trip_and_one_token_a_word(tokenizer, texts):
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert len(ids) == len(text.split())
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == text
        with_specials = [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]
        assert tokenizer.encode(text) == with_specials[:-1]
        assert tokenizer.decode(with_specials, skip_special_tokens=True) == text


def test_vocabulary_is_the_word_list(tokenizer):
    assert tokenizer.convert_ids_to_tokens(range(len(tokenizer))) == words()
    assert len({tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id}) == 4
    assert tokenizer.convert_tokens_to_ids(["46", "from"]) == [words().index("46"), words().index("from")]


def test_saved_folder_loads_with_auto_tokenizer(tokenizer, texts, tmp_path):
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert (loaded.pad_token_id, loaded.bos_token_id, loaded.eos_token_id) == (0, 1, 2)
    for text in texts:
        assert loaded.encode(text) == tokenizer.encode(text)
        assert loaded.decode(loaded.encode(text), skip_special_tokens=True) == text
