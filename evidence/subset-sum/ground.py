"""A second ground of the bundled model's size, whose search isn't Countdown's: which of these numbers sum to the target?

    python evidence/subset-sum/ground.py runs/subset-sum-init               # random weights and a tokenizer of its own
    reasonloop run evidence/subset-sum/base.toml --out runs/subset-sum-base # SFT on search traces: its product is `model/`

A problem is `47 from 3 8 11 15 19 22 28 :`. A trace takes numbers one after the other, each with what is left to the target:
`+ 28 19 ; + 22 no ; + 11 8 ; + 8 0 ; answer : 28 + 11 + 8`. `no`: too much. `back` gives the last one up.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any

from reasonloop.records import Judgement, Problem, Verdict

ANSWER = re.compile(r"answer : (\d+(?: \+ \d+)*)\s*$")
MOST = 80
"""The largest number that is a word"""


class SubsetSum:
    """Problems with `size` different numbers up to `largest`, of which `taken` to `taken` + 1 sum to the target."""

    def __init__(self, train: int = 2048, probe: int = 128, test: int = 384, size: int = 7, largest: int = 18) -> None:
        self.sizes = {"train": train, "probe": probe, "test": test}
        self.size, self.largest = size, largest

    def problems(self) -> Sequence[Problem]:
        return self._problems

    @cached_property
    def _problems(self) -> tuple[Problem, ...]:
        found: dict[str, Problem] = {}
        for split, wanted in self.sizes.items():
            rng = Random(f"subset-sum {split}")
            before = len(found)
            while len(found) < before + wanted:
                problem = self._draw(rng, split)
                if problem is not None:
                    found.setdefault(problem.id, problem)
        return tuple(found.values())

    def _draw(self, rng: Random, split: str) -> Problem | None:
        """None where the draw belongs to another split: every problem belongs to one for good."""
        numbers = sorted(rng.sample(range(2, self.largest + 1), self.size))
        target = sum(rng.sample(numbers, rng.choice((3, 4))))
        name = f"{target}-{'.'.join(map(str, numbers))}"
        share = hashlib.sha256(name.encode()).digest()[0]
        if ("train" if share < 179 else "probe" if share < 204 else "test") != split:
            return None
        subsets = solutions(numbers, target)
        return Problem(
            id=f"subset-sum-{name}",
            prompt=f"{target} from {' '.join(map(str, numbers))} :",
            answer=" + ".join(map(str, subsets[0])),
            split=split,
            meta={"numbers": numbers, "target": target, "solutions": len(subsets)},
        )

    def verify(self, problem: Problem, response: str) -> Judgement:
        found = ANSWER.search(response)
        if response.count("answer") != 1 or found is None:
            return Judgement(Verdict.UNPARSEABLE, "not one answer at the end")
        given = [int(word) for word in found[1].split(" + ")]
        if len(set(given)) < len(given) or not set(given) <= set(problem.meta["numbers"]):
            return Judgement(Verdict.WRONG, f"{found[1]}: not of the numbers, each once")
        if sum(given) != problem.meta["target"]:
            return Judgement(Verdict.WRONG, f"{found[1]} = {sum(given)}, not {problem.meta['target']}")
        return Judgement(Verdict.RIGHT, found[1])

    def quick(self, problem: Problem, response: str) -> Judgement:
        return self.verify(problem, response)

    def answer(self, problem: Problem, response: str) -> str | None:
        found = ANSWER.search(response)
        return found[1] if found else None

    def gold_response(self, problem: Problem) -> str:
        return f"answer : {problem.answer}"

    def demonstrations(
        self, n: int, seed: int, skill: float = 0.4, max_words: int = 60, success_only: bool = False
    ) -> Iterator[tuple[Problem, str]]:
        """Traces of a searcher that takes a number of a solution with probability `skill`, else any that is left."""
        rng = Random(f"subset-sum demonstrations {seed}")
        made = 0
        while made < n:
            problem = self._draw(rng, "train")
            if problem is None:
                continue
            words, solved = search(problem.meta["numbers"], problem.meta["target"], rng, skill, max_words)
            if solved or not success_only:
                yield problem, " ".join(words)
                made += 1


def solutions(numbers: Sequence[int], target: int) -> list[tuple[int, ...]]:
    """All sets of the numbers that sum to the target, the smallest sets first."""
    return [s for size in range(1, len(numbers) + 1) for s in combinations(numbers, size) if sum(s) == target]


def search(numbers: Sequence[int], target: int, rng: Random, skill: float, max_words: int) -> tuple[list[str], bool]:
    """The words of a search, and whether it ends with an answer; one that needs more words is cut off."""
    goals = [frozenset(one) for one in solutions(numbers, target)]
    chosen: list[int] = []
    tried: list[set[int]] = [set()]  # at each depth: what has been taken there
    words: list[str] = []
    while len(words) < max_words:
        left = target - sum(chosen)
        if left == 0:
            return [*words, *f"answer : {' + '.join(map(str, chosen))}".split()], True
        open_ones = [n for n in numbers if n not in chosen and n not in tried[-1]]
        if not open_ones or min(open_ones) > left:
            if not chosen:
                break
            words += ["back", ";"]
            tried.pop()
            chosen.pop()
            continue
        good = [n for n in open_ones if any({*chosen, n} <= goal for goal in goals)]
        number = rng.choice(good if good and rng.random() < skill else open_ones)
        tried[-1].add(number)
        if number > left:
            words += ["+", str(number), "no", ";"]
            continue
        chosen.append(number)
        tried.append(set())
        words += ["+", str(number), str(left - number), ";"]
    return words[:max_words], False


def initialise(folder: Path) -> None:
    """A Llama of 1.2 million parameters, seeded, one token a word."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from reasonloop.policy.policy import Policy

    pad, bos, eos, unk = specials = ["<pad>", "<bos>", "<eos>", "<unk>"]
    words = [*specials, *map(str, range(MOST + 1)), "+", ";", ":", "from", "no", "back", "answer"]
    core = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token=unk))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, words.index(bos))])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=pad, bos_token=bos, eos_token=eos, unk_token=unk, padding_side="left",
        clean_up_tokenization_spaces=False, model_max_length=256,
    )  # fmt: skip
    torch.manual_seed(0)
    shape: dict[str, Any] = {"hidden_size": 160, "intermediate_size": 416, "num_hidden_layers": 4}
    config = LlamaConfig(
        vocab_size=len(words), num_attention_heads=5, num_key_value_heads=5, max_position_embeddings=160,
        tie_word_embeddings=True, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, **shape,
    )  # fmt: skip
    Policy(LlamaForCausalLM(config), tokenizer).save(folder)


if __name__ == "__main__":
    initialise(Path(sys.argv[1]))
