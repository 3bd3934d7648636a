"""Effort: responses made to be paid for length that is no reasoning, and independent counts."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from effort_factory import decode, problem, rollout, tokens_rollout
from hypothesis import example, given
from hypothesis import strategies as st

from reasonloop.errors import InputError
from reasonloop.rewards.effort import answer_end_of, effort_of, tokens_before
from reasonloop.verify.answer_end import answer_end, default_answer_end
from reasonloop.verify.extract import STYLES, extract_answer

PROMPT = "what is six times seven , if a dozen has twelve eggs ?"
HONEST = "six times seven is six times five plus six times two , thirty plus twelve , so the answer is 42"


def count(text: str, prompt: str = PROMPT) -> int:
    return effort_of(rollout(text, prompt=prompt), 4, decode, default_answer_end).tokens


def effort_tokens(prompt: np.ndarray, response: np.ndarray, n: int) -> int:
    """Of a response without an answer."""
    return effort_of(tokens_rollout(prompt, response), n, lambda tokens: "", lambda text: None).tokens


# the four hacks


@pytest.mark.parametrize("answer", [r"\boxed{42}", "#### 42", "so the answer is 42"])
def test_padding_behind_the_answer_is_worth_nothing(answer: str) -> None:
    thought = "seven and seven is fourteen , thrice that makes it"
    padding = " ".join(f"word{i}" for i in range(500))
    assert count(f"{thought} {answer} {padding}") == count(f"{thought} {answer}") > 8
    again = f"{thought} {answer} wait , let me see whether it was {padding} {answer}"
    assert count(again) == count(f"{thought} {answer}")


@pytest.mark.parametrize("period", [1, 2, 3, 4, 7, 20])
def test_a_loop_counts_once(period: int) -> None:
    loop = np.arange(100, 100 + period, dtype=np.int32)
    prompt = np.arange(5, dtype=np.int32)
    assert effort_tokens(prompt, np.tile(loop, 300), 4) == period + 3


def test_a_repeated_paragraph_between_new_words_adds_only_its_seams() -> None:
    paragraph = " ".join(f"para{i}" for i in range(50))
    once, thrice = count(f"{paragraph} end"), count(f"{paragraph} one {paragraph} two {paragraph} three")
    assert thrice <= once + 2 * 7


def test_a_copied_prompt_is_worth_nothing() -> None:
    assert count(PROMPT) == 0
    assert count(" ".join([PROMPT] * 40)) <= 6  # the seams, once
    assert count(f"{PROMPT} {HONEST}") <= count(HONEST) + 3


def test_an_answer_at_once_is_next_to_no_effort() -> None:
    assert count("#### 42") <= 2
    assert count(r"\boxed{42} " + " ".join(f"w{i}" for i in range(100))) == 1
    assert effort_of(rollout("", prompt=PROMPT), 4, decode, default_answer_end).tokens == 0


def test_honest_reasoning_counts_in_full() -> None:
    assert count(HONEST) == len(HONEST.split())


# the count


def brute_force(prompt: list[int], response: list[int], n: int) -> int:
    n = min(n, len(response))
    copied = [prompt[i : i + n] for i in range(len(prompt) - n + 1)]
    counted = set()
    for i in range(len(response) - n + 1 if n else 0):
        gram = response[i : i + n]
        if gram not in copied and all(response[j : j + n] != gram for j in range(i)):
            counted.update(range(i, i + n))
    return len(counted)


few = st.lists(st.integers(0, 3), max_size=25)


@given(prompt=few, response=few, n=st.integers(1, 5))
def test_effort_tokens_are_those_in_first_occurrences(prompt: list[int], response: list[int], n: int) -> None:
    arrays = np.array(prompt, np.int32), np.array(response, np.int32)
    assert effort_tokens(*arrays, n) == brute_force(prompt, response, n)


@given(prompt=few, response=few, more=few, n=st.integers(1, 5))
def test_effort_is_bounded_and_going_on_never_takes_any_away(
    prompt: list[int], response: list[int], more: list[int], n: int
) -> None:
    before = effort_tokens(np.array(prompt, np.int32), np.array(response, np.int32), n)
    after = effort_tokens(np.array(prompt, np.int32), np.array(response + more, np.int32), n)
    assert 0 <= before <= len(response)
    if len(response) >= n:
        assert after >= before


# from characters to tokens


@pytest.fixture(scope="module")
def byte_tokenizer() -> Any:
    """Byte-level BPE: characters outside of ASCII are torn across tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([HONEST * 5, "die Lösung ist 42, größer als 7 " * 5], trainer)
    return tokenizer


@given(text=st.text(st.sampled_from("so 42 ist größer 😀€é\n{}\\#"), max_size=40), data=st.data())
def test_the_cut_is_the_first_prefix_that_holds_the_text(byte_tokenizer: Any, text: str, data: st.DataObject) -> None:
    ids = np.array(byte_tokenizer.encode(text).ids, np.int32)
    offset = data.draw(st.integers(0, len(text)))

    def decoded(tokens: np.ndarray) -> str:
        return byte_tokenizer.decode(tokens.tolist())

    expected = next(k for k in range(len(ids) + 1) if decoded(ids[:k]).startswith(text[:offset]))
    assert tokens_before(ids, text[:offset], decoded) == expected


def test_special_tokens_that_decode_to_nothing_do_not_shift_the_cut() -> None:
    def decoded(tokens: np.ndarray) -> str:
        return " ".join(str(token) for token in tokens.tolist() if token >= 0)

    tokens = np.array([-1, 5, -1, -1, 6, 7, -1], np.int32)  # "5 6 7"
    assert [tokens_before(tokens, "5 6 7"[:offset], decoded) for offset in (0, 1, 2, 3, 5)] == [0, 2, 5, 5, 6]


def test_the_cut_takes_few_decodes() -> None:
    calls = []

    def counted(tokens: np.ndarray) -> str:
        calls.append(len(tokens))
        return "x" * len(tokens)

    assert tokens_before(np.zeros(100_000, np.int32), "x" * 77_777, counted) == 77_777
    assert len(calls) <= 20


# where the answer ends


@pytest.mark.parametrize(
    ("text", "upto"),
    [
        (r"so \boxed{42} and on", r"so \boxed{42}"),
        (r"so \boxed {\frac{1}{2}} and on", r"so \boxed {\frac{1}{2}}"),
        (r"\boxed{\{1\}} \boxed{2}", r"\boxed{\{1\}}"),
        (r"{ \boxed{1} {", r"{ \boxed{1}"),
        (r"}} \boxed{1 \boxed{2} 3", r"}} \boxed{1 \boxed{2}"),
        ("x\n#### 42\nmore", "x\n#### 42"),
        ("#### 42 apples and pears", "#### 42"),
        ("#### $-1,234.50 more", "#### $-1,234.50"),
        ("The answer is 5. No, the answer is 6.", "The answer is 5."),
        ("Final answer: **12** because", "Final answer: **12**"),
        ("the answer is blue. And so on", "the answer is blue"),
        ("3 + 4 = 7 ; answer ( 3 + 4 ) * 5 and more", "3 + 4 = 7 ; answer ( 3 + 4 ) * 5"),
        ("The answer is not clear yet. answer: 3 now", "The answer is not clear yet. answer: 3"),
        ("the answer is to be found. #### 3", "the answer is to be found. #### 3"),
    ],
)
def test_default_answer_end(text: str, upto: str) -> None:
    end = default_answer_end(text)
    assert end is not None
    assert text[:end] == upto


@pytest.mark.parametrize(
    "text", ["", "7 is it", r"\boxed{42", r"\boxed", "####", "####\n42", "#### Step one", "is the answer wrong ?"]
)
def test_no_answer(text: str) -> None:
    assert default_answer_end(text) is None


@pytest.mark.parametrize(
    ("style", "text", "upto"),
    [
        ("boxed", "the answer is 4. #### 3 \\boxed{5} x", "the answer is 4. #### 3 \\boxed{5}"),
        ("bare", "\\boxed{5} x", "\\boxed{5}"),
        ("bare", "just 5", None),
        ("hash", "the answer is 4 \\boxed{5} #### blue\nx", "the answer is 4 \\boxed{5} #### blue"),
        ("last_number", "1 and 22 ends", "1 and 22"),
        ("last_number", "none", None),
        ("final", "1 and 22 ends", "1 and 22"),
        ("final", "\\boxed{5} 22", "\\boxed{5}"),
        ("final", "<think>\\boxed{4}</think> <answer>5</answer> 6", "<think>\\boxed{4}</think> <answer>5</answer>"),
        ("final", "<think>\\boxed{4} and 5", None),
        ("boxed", "<think>\\boxed{4}</think> \\fbox{5} 6", "<think>\\boxed{4}</think> \\fbox{5}"),
        ("all", "the answer is 4. #### 3 \\boxed{5}", None),
    ],
)
def test_answer_end_by_style(style: str, text: str, upto: str | None) -> None:
    end = answer_end(text, style)
    assert (None if end is None else text[:end]) == upto


def test_an_unknown_style_is_refused() -> None:
    with pytest.raises(InputError, match="boxd"):
        answer_end("x", "boxd")


def test_a_task_may_know_better() -> None:
    class Own:
        def answer_end(self, problem: object, text: str) -> int | None:
            return text.find("done") + 4

    assert answer_end_of(Own())(problem(), "it is done #### 3") == 10
    assert answer_end_of(object())(problem(), "it is done #### 3 x") == 17


@pytest.mark.parametrize("extract", ["answer", "boxed"])
def test_countdown_knows_its_own_answers(extract: str) -> None:
    from reasonloop.tasks.countdown.task import Countdown

    task = Countdown(train=1, probe=0, test=0, extract=extract)
    (own,) = [p for p in task.problems() if p.split == "train"]
    gold = task.gold_response(own)
    end = answer_end_of(task)(own, f"{gold} and then more words")
    assert end is not None
    assert end <= len(gold) + 1


pieces = st.lists(
    st.sampled_from(
        [r"\boxed{", "}", "{", "\\", "#", "####", "answer is ", "answer: ", "5", " ", "\n", ".", "a", "not"]
    )
).map("".join)


@given(text=pieces, style=st.sampled_from(STYLES))
def test_an_end_lies_in_the_text_and_nothing_behind_it_moves_it(text: str, style: str) -> None:
    end = answer_end(text, style)
    assert end is None or 0 < end <= len(text)
    box = default_answer_end(text)
    assert box is None or 0 < box <= len(text)


@given(text=pieces, more=pieces)
def test_once_a_box_is_closed_nothing_behind_it_moves_the_end(text: str, more: str) -> None:
    end = answer_end(text, "boxed")
    if end is not None:
        assert answer_end(text + more, "boxed") == end


@given(text=pieces, style=st.sampled_from(["boxed", "hash"]))
@example(text="\\\\boxed{answer is }", style="boxed")  # a line break in LaTeX, and a box behind it
def test_a_found_answer_has_an_end(text: str, style: str) -> None:
    answer = extract_answer(text, style)
    if answer is not None and not answer.startswith("#"):
        assert answer_end(text, style) is not None


@pytest.mark.parametrize(
    "unit",
    ["\\boxed{", "\\boxed ", "{", "}", "####", "#### ", "answer is ", "answer\n", "answer ", " ", "5 ", "\\", "."],
)
def test_linear_time(unit: str) -> None:
    began = time.process_time()
    text = unit * (400_000 // len(unit))
    default_answer_end(text)
    for style in STYLES:
        answer_end(text, style)
    assert time.process_time() - began < 5.0  # quadratic would take minutes


def test_what_a_tool_said_is_no_effort() -> None:
    words = " ".join(f"w{i}" for i in range(12))
    plain = rollout(words)
    sampled = np.ones(12, dtype=bool)
    sampled[4:8] = False
    told = effort_of(replace(plain, sampled=sampled), 4, decode, default_answer_end)
    assert told.tokens == 8  # w0 to w3 and w8 to w11; n-grams across the border are nobody's
    assert effort_of(plain, 4, decode, default_answer_end).tokens == 12
