"""Decodes with our engine in one process, in an environment of the caller's choice.

Options: {"model", "rows", "tokens", "threads"}. Requests: {} -> {"seconds"} of `tokens` decoding steps with `rows` rows.
"""

from __future__ import annotations

import lines
import numpy as np
import torch

from reasonloop.bench.measure import GROUP, decoding_step, random_tokens
from reasonloop.config import Sampling
from reasonloop.engine.native import NativeEngine
from reasonloop.engine.protocol import Address, Prompt
from reasonloop.policy.policy import Policy

PROMPT = 48


def main() -> None:
    options = lines.options()
    torch.set_num_threads(options["threads"])
    policy = Policy.load(options["model"])
    engine = NativeEngine()
    engine.load(policy)
    rows, tokens = options["rows"], options["tokens"]
    rng = np.random.default_rng(0)
    prompts = [Prompt(str(i), random_tokens(rng, policy, PROMPT)) for i in range(rows // GROUP)]
    sampling = Sampling(max_tokens=tokens + 1, slots=rows)  # the first token is drawn from the prompt's state
    lines.ready("torch")
    for turn, _ in enumerate(lines.requests()):
        step = decoding_step(engine, prompts, GROUP, sampling, Address(turn, "bench"), np.full(rows, tokens + 1))
        lines.answer({"seconds": step * tokens})


if __name__ == "__main__":
    main()
