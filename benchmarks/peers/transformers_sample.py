"""Samples with transformers' `generate` or its continuous batching, every response of a given length.

Options: {"model": folder, "engine": "generate" | "continuous", "threads"}.
Requests: {"prompts": [[token]], one a response, "lengths": [int]} -> {"seconds", "tokens"}.
"""

from __future__ import annotations

import time
from typing import Any

import lines
import torch
from forced import LengthReached, forced_lengths
from transformers import AutoModelForCausalLM, GenerationConfig, StoppingCriteriaList
from transformers.generation import ContinuousBatchingConfig


def generate(model: Any, prompts: list[list[int]], lengths: list[int]) -> int:
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    settings = GenerationConfig(max_new_tokens=max(lengths), do_sample=True, pad_token_id=0, top_k=0)
    stop = StoppingCriteriaList([LengthReached(width, lengths)])
    out = model.generate(ids, attention_mask=mask, generation_config=settings, stopping_criteria=stop)
    assert out.shape[1] == width + max(lengths)
    return sum(lengths)


def continuous(model: Any, prompts: list[list[int]], lengths: list[int]) -> int:
    settings = GenerationConfig(max_new_tokens=max(lengths), do_sample=True, pad_token_id=0, eos_token_id=-1, top_k=0)
    page = 32
    pages = sum(-(-(len(p) + n) // page) for p, n in zip(prompts, lengths, strict=True)) + len(prompts) + 8
    config = ContinuousBatchingConfig(page_size=page, num_blocks=pages, max_batch_tokens=4096)
    with forced_lengths(lengths):
        out = model.generate_batch(prompts, generation_config=settings, continuous_batching_config=config)
    assert [len(answer.generated_tokens) for answer in out.values()] == lengths
    return sum(lengths)


def main() -> None:
    options = lines.options()
    torch.set_num_threads(options["threads"])
    model = AutoModelForCausalLM.from_pretrained(options["model"], dtype=torch.float32, trust_remote_code=False)
    model.generation_config.eos_token_id = None
    run = {"generate": generate, "continuous": continuous}[options["engine"]]
    lines.ready("torch", "transformers")
    for request in lines.requests():
        start = time.perf_counter()
        tokens = run(model, request["prompts"], request["lengths"])
        lines.answer({"seconds": time.perf_counter() - start, "tokens": tokens})


if __name__ == "__main__":
    main()
