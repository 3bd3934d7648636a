"""A stand-in for vLLM with the calls that are made of it: it records them, and it loses weights as vLLM does when it sleeps.

What it samples is random; the log-probs are those of the weights that it was sent, at temperature 1.
"""

from __future__ import annotations

import os
import random
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from types import SimpleNamespace as Space
from typing import Any

import numpy as np
import torch
from tiny_models import tiny_policy

from reasonloop.config import Sampling

DELTA, FINAL_ONLY = "delta", "final"


@dataclass
class SamplingParams:
    max_tokens: int
    seed: int
    stop_token_ids: list[int]
    output_kind: str
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    ignore_eos: bool
    logprobs: int
    flat_logprobs: bool
    detokenize: bool


@dataclass
class Asked:
    name: str
    tokens: list[int]
    logprobs: np.ndarray
    finish: str
    delta: bool
    sent: int = 0


@dataclass
class LLMEngine:
    llm: Any
    model_config: Any
    asked: dict[str, Asked] = field(default_factory=dict)
    fails: Exception | None = None

    @property
    def engine_core(self) -> Any:
        return Space(shutdown=lambda: self.llm.calls.append("shutdown"))

    def add_request(self, request_id: str, prompt: dict[str, list[int]], params: SamplingParams) -> str:
        assert params.ignore_eos
        assert params.flat_logprobs
        assert (params.logprobs, params.detokenize) == (0, False)
        tokens = np.random.default_rng(params.seed).integers(2, 97, params.max_tokens).astype(np.int32)
        ends = [i + 1 for i, token in enumerate(tokens.tolist()) if token in params.stop_token_ids]
        tokens = tokens[: min([*ends, len(tokens)])]
        (logprobs,) = self.llm.twin.score([np.array(prompt["prompt_token_ids"])], [tokens], Sampling())
        known, delta = f"{request_id}-{len(self.asked):08x}", params.output_kind == DELTA
        self.asked[known] = Asked(request_id, tokens.tolist(), logprobs, "stop" if ends else "length", delta)
        return known

    def abort_request(self, request_ids: list[str], internal: bool = False) -> None:
        assert internal
        for known in request_ids:
            del self.asked[known]

    def step(self) -> list[Any]:
        assert not self.llm.asleep, "it sleeps"
        if self.fails:
            raise self.fails
        torch.rand(1)  # vLLM's sampler on a CPU draws from the global generator
        found = []
        for known, one in [*self.asked.items()]:
            one.sent += 1
            over = one.sent == len(one.tokens)
            if over:
                del self.asked[known]
            if one.delta or over:
                new = slice(one.sent - 1 if one.delta else 0, one.sent)
                # as in vLLM, flat log-probs of a delta may begin before it
                flat = Space(logprobs=one.logprobs[: one.sent].tolist(), start_indices=list(range(one.sent)))
                output = Space(token_ids=one.tokens[new], logprobs=flat, finish_reason=one.finish if over else None)
                found.append(Space(request_id=one.name, finished=over, outputs=[output]))
        return found


class LLM:
    made: list[LLM]
    calls: list[Any]
    """Of all engines together"""
    reload_fails_at: int | None = None

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.calls.append("build")
        self.made.append(self)
        self.asleep: set[str] = set()
        self.twin = tiny_policy("llama", seed=99)
        most = options["max_model_len"] if options["max_model_len"] > 0 else 256
        self.llm_engine = LLMEngine(self, Space(max_model_len=most))
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        torch.set_num_threads = lambda n: None
        os.environ["LD_PRELOAD"], os.environ["LOCAL_WORLD_SIZE"] = "libtcmalloc.so", "1"
        os.environ["VLLM_DIST_IDENT"] = "1"
        print("something on stdout")
        os.write(1, b"something from C\n")

    def collective_rpc(self, method: str, kwargs: dict[str, Any]) -> None:
        assert method == "reload_weights"
        assert "weights" not in self.asleep
        self.calls.append("reload")
        own = dict(self.twin.model.named_parameters())
        with torch.no_grad():
            for n, (name, value) in enumerate(kwargs["weights_iterator"]):
                if n == self.reload_fails_at:
                    raise ValueError("no such weight")
                own.pop(name).copy_(value)
        assert not own

    def apply_model(self, function: Callable[[Any], Any]) -> None:
        self.calls.append("apply")
        function(self.twin.model)

    def reset_prefix_cache(self) -> bool:
        self.calls.append("reset")
        return True

    def sleep(self, level: int) -> None:
        self.calls.append(("sleep", level))
        self.asleep = {"weights", "kv_cache"}
        with torch.no_grad():
            for parameter in self.twin.model.parameters():
                parameter.zero_()

    def wake_up(self, tags: list[str]) -> bool:
        self.calls.append(("wake", *tags))
        self.asleep -= {*tags}
        return not self.asleep


def install(monkeypatch: Any, *, cpu: bool) -> type[LLM]:
    """As if vLLM were installed, for a CPU or a GPU; the class that records."""
    made = type("LLM", (LLM,), {"made": [], "calls": []})
    module = types.ModuleType("vllm")
    module.__spec__ = ModuleSpec("vllm", None)
    module.LLM, module.SamplingParams = made, SamplingParams  # type: ignore[attr-defined]
    parts = {
        "": module,
        ".envs": Space(VLLM_ENABLE_V1_MULTIPROCESSING=False),
        ".platforms": Space(current_platform=Space(is_cpu=lambda: cpu)),
        ".sampling_params": Space(RequestOutputKind=Space(DELTA=DELTA, FINAL_ONLY=FINAL_ONLY)),
    }
    for name, part in parts.items():
        monkeypatch.setitem(sys.modules, f"vllm{name}", part)
        if name:
            setattr(module, name[1:], part)
    monkeypatch.setattr("reasonloop.engine.vllm_guest._version", lambda: "0.32.0")
    return made
