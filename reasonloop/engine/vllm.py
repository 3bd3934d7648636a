"""vLLM as the sampling engine, in the learner's process: tokens in and out, weights from the learner's memory."""

from __future__ import annotations

import gc
import json
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reasonloop.config import Sampling
from reasonloop.engine.protocol import Completion, Done, Request
from reasonloop.engine.vllm_generation import Generation
from reasonloop.engine.vllm_guest import expect_vllm, import_vllm, moving_in, undisturbed
from reasonloop.errors import InputError, RunError, first_line
from reasonloop.policy.policy import Policy, Weights

LEAST_TEMPERATURE = 0.01
"""vLLM raises smaller ones to this one"""
CPU_BLOCK = 32
"""Tokens in a block of keys and values on a CPU, where vLLM's own choice of 128 shares no prompt shorter than that"""
GIB = 2**30


class VllmEngine:
    """Samples with vLLM. It has a copy of the policy's weights, which `load` brings up to date from the learner's memory.

    On a GPU it sleeps while the learner works: then the card's memory is the learner's.
    """

    exact = False

    def __init__(
        self,
        slots: int = 256,
        memory: float = 0.4,
        kv_gib: float = 2.0,
        context: int = 0,
        eager: bool | None = None,
        tolerance: float = 0.0,
    ) -> None:
        """`slots`: responses in flight at once. `memory`: the share of a GPU's memory for its weights, keys and values.
        `kv_gib`: GiB of keys and values on a CPU. `context`: most tokens of prompt and response together (0: the model's).
        `eager`: without compiling and CUDA graphs (unset: so on a CPU). `tolerance`: see `CheckedEngine` (0: by dtype).

        Raises InputError where an option is none, or where there is no vLLM that will do.
        """
        _expect("slots", slots, int, 1, None, "a whole number of at least 1")
        _expect("memory", memory, float, 0.01, 1.0, "a share of the GPU's memory, above 0 and at most 1")
        _expect("kv_gib", kv_gib, float, 0.01, None, "GiB, above 0")
        _expect("context", context, int, 0, None, "tokens, or 0 for the model's own context")
        _expect("tolerance", tolerance, float, 0.0, None, "nats, or 0 for what rounding does")
        if eager is not None and not isinstance(eager, bool):
            raise InputError(f"engine.eager = {eager!r}: expected true or false")
        expect_vllm()
        self.slots, self.memory, self.kv_gib, self.context = slots, float(memory), float(kv_gib), context
        self.eager, self.tolerance = eager, float(tolerance)
        self._llm: Any = None
        self._built_for: str | None = None
        """What of a model an engine is built for: its configuration and dtype"""
        self._loaded: _Loaded | None = None
        """None where there is nothing to sample from: before the first load, after a failed one, asleep"""
        self._asleep = self._sleeps = False

    def load(self, weights: Weights) -> None:
        """See `Engine`. The first one builds vLLM's engine, which takes a minute or more. Raises RunError where that or
        sending the weights fails."""
        if self._loaded is not None and self._loaded.are(weights):
            return
        self._loaded = None
        built_for = _built_for(weights)
        if self._llm is not None and self._built_for != built_for:
            self._discard()
        if self._llm is None:
            with self._or_given_up("can't be built"), moving_in():
                self._llm = self._build(weights)
                self._built_for = built_for
        with self._or_given_up("didn't take the weights"), undisturbed():  # a model of which a half is new is none
            self._synchronise(weights)
        self._loaded = _Loaded(weights)

    @contextmanager
    def _or_given_up(self, what: str) -> Iterator[None]:
        """Whatever fails inside, the engine is given up: the next `load` builds another. Raises RunError then."""
        try:
            yield
        except InputError:
            raise
        except BaseException as error:
            self._discard()
            if not isinstance(error, Exception):
                raise
            raise RunError(
                f"engine vllm {what}: {type(error).__name__}: {first_line(error)}; nothing that was stored is lost: the "
                "same command goes on, and VLLM_LOGGING_LEVEL=INFO in front of it has vLLM say more (docs/vllm.md)"
            ) from error

    def _build(self, weights: Weights) -> Any:
        """An engine with random weights."""
        vllm = import_vllm()
        from vllm.platforms import current_platform

        on_cpu = current_platform.is_cpu()
        room: dict[str, Any] = {"gpu_memory_utilization": self.memory, "enable_sleep_mode": True}
        if on_cpu:
            room = {"kv_cache_memory_bytes": int(self.kv_gib * GIB), "block_size": CPU_BLOCK}
        self._sleeps = not on_cpu
        with tempfile.TemporaryDirectory(prefix="reasonloop-vllm-") as folder:
            _config(weights).save_pretrained(folder)
            return vllm.LLM(
                model=folder,
                skip_tokenizer_init=True,
                trust_remote_code=False,
                generation_config="vllm",  # no sampling options of the model's own
                load_format="dummy",
                dtype=_dtype(weights),
                logprobs_mode="processed_logprobs",
                max_model_len=self.context or -1,  # what fits, of what the model reaches
                max_num_seqs=self.slots,
                enforce_eager=on_cpu if self.eager is None else self.eager,
                enable_prefix_caching=True,
                disable_log_stats=True,
                use_tqdm_on_load=False,
                **room,
            )

    def _synchronise(self, weights: Weights) -> None:
        """The policy's weights as they are now, in place of vLLM's; nothing that was computed with others is kept."""
        if self._asleep:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self._llm.wake_up(tags=["weights"])
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights_of(weights)})
        if getattr(_config(weights).get_text_config(), "tie_word_embeddings", False):
            self._llm.apply_model(_follow_embedding)
        if self._asleep:
            if not self._llm.wake_up(tags=["kv_cache"]):
                raise RuntimeError("vLLM doesn't wake up")
            self._asleep = False
        if not self._llm.reset_prefix_cache():
            raise RuntimeError("vLLM keeps what it has computed with other weights")

    def rest(self) -> None:
        """See `Engine`. On a GPU its memory is given up, weights included: the next `load` sends them again."""
        if self._llm is None or not self._sleeps or self._asleep:
            return
        self._loaded = None
        with self._or_given_up("didn't fall asleep"), undisturbed():
            self._llm.sleep(level=2)
        self._asleep = True

    def close(self) -> None:
        self._discard()

    def _discard(self) -> None:
        llm, asleep = self._llm, self._asleep
        self._llm, self._loaded, self._built_for, self._asleep = None, None, None, False
        if llm is not None:
            with undisturbed(), suppress(Exception):
                if asleep:  # its memory can't be given back as it is
                    llm.wake_up()
            with undisturbed(), suppress(Exception):  # of one that is broken there may be nothing to shut down
                llm.llm_engine.engine_core.shutdown()
            del llm
            gc.collect()

    def check(self, sampling: Sampling) -> None:
        """Raises InputError for a distribution that vLLM's order of filters makes another one of."""
        if sampling.temperature < LEAST_TEMPERATURE:
            raise InputError(
                f"sampling.temperature = {sampling.temperature}: engine vllm raises it to {LEAST_TEMPERATURE}; expected at "
                "least that, or eval.temperature = 0 for greedy evaluation"
            )
        if sampling.top_p < 1 and sampling.min_p > 0:
            raise InputError(
                f"sampling.top_p = {sampling.top_p} and sampling.min_p = {sampling.min_p}: engine vllm applies min-p first "
                "and would sample another distribution; expected one of the two"
            )

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, on_done: Done | None = None
    ) -> list[Completion]:
        """See `Engine`. Raises RunError when vLLM fails, or when the policy has diverged; InputError for a request that is
        longer than the context."""
        if self._loaded is None:
            raise RunError("engine vllm: no weights are loaded: call load() first")
        self.check(sampling)
        most = int(self._llm.llm_engine.model_config.max_model_len)
        for request in requests:
            whole = len(request.prompt) + (request.length or sampling.max_tokens)
            if whole > most:
                raise InputError(
                    f"engine.context = {self.context}: vLLM has room for {most} tokens, a prompt of {len(request.prompt)} "
                    f"and its response need {whole}; expected at least that"
                )
        with undisturbed():
            return Generation(self._llm.llm_engine, self._step, self._loaded, requests, sampling, on_done).run()

    def _step(self) -> list[Any]:
        """vLLM's next outputs."""
        with self._or_given_up("has died while it sampled"):
            found: list[Any] = self._llm.llm_engine.step()
        return found


class _Loaded:
    """Which weights an engine has. A policy that is gone is none, whatever stands in its place in memory now."""

    def __init__(self, weights: Weights) -> None:
        self._policy: Callable[[], Policy | None] = weakref.ref(weights.policy) if weights.policy else lambda: None
        self._state = _state(weights)
        self.version = weights.version
        self.decode: Callable[[np.ndarray], str] | None = weights.policy.codec.decode if weights.policy else None

    def are(self, weights: Weights) -> bool:
        return self._policy() is weights.policy and self._state == _state(weights)


def _state(weights: Weights) -> tuple[Any, ...]:
    if weights.policy is not None:
        return weights.version, weights.policy.fingerprint()
    assert weights.folder is not None
    return weights.version, tuple((str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in _files(weights.folder))


def weights_of(weights: Weights) -> Iterator[tuple[str, Tensor]]:
    """Each of the weights under its name in a Hugging Face folder."""
    if weights.policy is not None:
        yield from weights.policy.merged_parameters()
        return
    from safetensors import safe_open

    assert weights.folder is not None
    for file in _files(weights.folder):
        with safe_open(file, "pt") as stored:
            yield from ((name, stored.get_tensor(name)) for name in stored.keys())  # noqa: SIM118  (it is no dict)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def _config(weights: Weights) -> Any:
    """transformers' configuration, which names the model's class."""
    if weights.policy is None:
        from transformers import AutoConfig

        assert weights.folder is not None
        return AutoConfig.from_pretrained(weights.folder, local_files_only=True, trust_remote_code=False)
    config = weights.policy.model.config
    if not config.architectures:
        config.architectures = [type(weights.policy.model).__name__]
    return config


def _dtype(weights: Weights) -> str:
    if weights.policy is None:
        return "auto"
    return str(next(weights.policy.model.parameters()).dtype).removeprefix("torch.")


def _built_for(weights: Weights) -> str:
    options = {
        key: value for key, value in _config(weights).to_dict().items() if not key.startswith(("_", "transformers"))
    }
    return json.dumps([_dtype(weights), options], default=str, sort_keys=True)


def _follow_embedding(model: Any) -> None:
    """On a CPU vLLM lays linear weights out anew when they are loaded. A head that is the embedding has none of its own to
    load: it would silently keep the ones from before."""
    head = getattr(model, "lm_head", None)
    method = getattr(head, "quant_method", None)
    if method is not None:
        method.process_weights_after_loading(head)


def _expect(name: str, value: Any, kind: type, least: float, most: float | None, expected: str) -> None:
    kinds = (int, float) if kind is float else (int,)
    right = isinstance(value, kinds) and not isinstance(value, bool) and value >= least
    if not right or (most is not None and value > most):
        raise InputError(f"engine.{name} = {value!r}: expected {expected}")
