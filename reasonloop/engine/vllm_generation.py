"""One call of `generate` with vLLM: requests added, its steps taken, responses handed on as they end."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from reasonloop.config import Sampling
from reasonloop.engine.protocol import Completion, Done, Request
from reasonloop.engine.stop_text import stops
from reasonloop.errors import Diverged, RunError


class Source(Protocol):
    """What responses come from."""

    version: int
    decode: Callable[[np.ndarray], str] | None
    """`Codec.decode`; None where the weights came without a tokenizer"""


@dataclass
class _Flight:
    """A response in flight."""

    number: int
    request: Request
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    tail: int = 0
    """Where the tail begins in which stop texts are looked for"""

    @property
    def reads(self) -> bool:
        return bool(self.request.stop_texts) and not self.request.length


class Generation:
    """One call of `generate`."""

    _calls = itertools.count()

    def __init__(
        self,
        vllm: Any,
        step: Callable[[], list[Any]],
        source: Source,
        requests: Sequence[Request],
        sampling: Sampling,
        on_done: Done | None,
    ) -> None:
        """`vllm`: its LLMEngine; `step`: that one's, guarded."""
        self.vllm, self.step, self.source = vllm, step, source
        self.requests, self.sampling, self.on_done = requests, sampling, on_done
        self.flights: dict[str, _Flight] = {}
        """By vLLM's name"""
        self.names: dict[str, str] = {}
        """Ours, which outputs have -> vLLM's, which requests are known by there"""
        self.done: list[Completion | None] = [None] * len(requests)

    def run(self) -> list[Completion]:
        try:
            call = next(self._calls)
            for number, request in enumerate(self.requests):
                self._add(f"{call}-{number}", _Flight(number, request))
            while self.flights:
                for output in self.step():
                    self._take(output)
        except BaseException:
            with suppress(Exception):
                self.vllm.abort_request([*self.flights], internal=True)
            raise
        return [completion for completion in self.done if completion is not None]

    def _add(self, name: str, flight: _Flight) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        request, sampling = flight.request, self.sampling
        options = SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            max_tokens=request.length or sampling.max_tokens,
            seed=request.draw & (2**63 - 1),
            stop_token_ids=[] if request.length else sorted(request.stop),
            ignore_eos=True,  # which of a model's tokens end a text is known here
            logprobs=0,  # of the sampled token alone
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA if flight.reads else RequestOutputKind.FINAL_ONLY,
        )
        known = self.vllm.add_request(name, {"prompt_token_ids": request.prompt.tolist()}, options)
        self.names[name] = known
        self.flights[known] = flight

    def _take(self, output: Any) -> None:
        """What is new of a response."""
        known = self.names.get(output.request_id, "")
        flight = self.flights.get(known)
        if flight is None:  # a last token of one that was cut
            return
        (new,) = output.outputs
        tokens, logprobs = list(new.token_ids), _logprobs(new)
        for token, logprob in zip(tokens, logprobs, strict=True):
            flight.tokens.append(token)
            flight.logprobs.append(logprob)
            if flight.reads and self._reads_stop(flight):
                if not output.finished:
                    self.vllm.abort_request([known], internal=True)
                self._complete(known, "stop")
                return
        if output.finished:
            if new.finish_reason not in ("stop", "length"):
                raise RunError(f"engine vllm has given up a response: {new.finish_reason}; the same command goes on")
            self._complete(known, new.finish_reason)

    def _reads_stop(self, flight: _Flight) -> bool:
        if self.source.decode is None:
            raise RunError("engine vllm: stop texts need a policy's tokenizer, and the weights came from a folder")
        tail = np.array(flight.tokens[flight.tail :])
        found, dropped = stops(tail, flight.request.stop_texts, self.source.decode)
        flight.tail += dropped
        return found

    def _complete(self, known: str, finish: str) -> None:
        flight = self.flights.pop(known)
        logprobs = np.array(flight.logprobs, np.float32)
        if not np.isfinite(logprobs).all():
            raise Diverged("the policy's logits are not finite")
        completion = Completion(np.array(flight.tokens, np.int32), logprobs, finish, self.source.version)
        self.done[flight.number] = completion
        if self.on_done is not None:
            self.on_done(flight.number, completion)


def _logprobs(new: Any) -> list[float]:
    """Of an output's tokens: at each position the first one is the sampled token's."""
    flat = new.logprobs
    return [flat.logprobs[start] for start in flat.start_indices[len(flat.start_indices) - len(new.token_ids) :]]
