"""Log-probs, entropies and gradients against a float64 reference: alone, padded, packed, behind a shared prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from float64_reference import Reference
from tiny_models import pairs, tiny_policy

import reasonloop.policy.logprobs as logprobs_module
from reasonloop.config import Sampling
from reasonloop.policy.logprobs import target_logprobs
from reasonloop.policy.policy import Policy
from reasonloop.policy.stream import pack

TOLERANCE = 1e-5


@dataclass
class Case:
    policy: Policy
    reference: Reference
    prompts: list[np.ndarray]
    responses: list[np.ndarray]
    expected: list[np.ndarray]


@pytest.fixture(scope="module", params=["llama", "llama_tied", "qwen2", "qwen3"])
def case(request: pytest.FixtureRequest) -> Case:
    policy = tiny_policy(request.param, seed=3)
    reference = Reference(policy.model)
    prompts, responses = pairs(5, groups=3, size=3, longest=24)
    with torch.no_grad():
        expected = [reference.logprobs(p.tolist(), r.tolist()).numpy() for p, r in zip(prompts, responses, strict=True)]
    return Case(policy, reference, prompts, responses, expected)


def assert_close(got: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE)


def forward(policy: Policy, prompts: list[np.ndarray], responses: list[np.ndarray], sampling: Sampling) -> Any:
    stream = pack(prompts, responses)
    hidden = policy.hidden(stream.tokens, stream.positions, stream.plan)[stream.predict_from]
    return target_logprobs(hidden, policy.head(), stream.targets, sampling)


def test_alone(case: Case) -> None:
    alone = [case.policy.score([p], [r], Sampling())[0] for p, r in zip(case.prompts, case.responses, strict=True)]
    assert_close(alone, case.expected)


def test_packed_behind_shared_prompts(case: Case) -> None:
    assert_close(case.policy.score(case.prompts, case.responses, Sampling()), case.expected)


def test_packed_without_sharing(case: Case) -> None:
    # one response of each group: every prompt belongs to a single response
    chosen = slice(0, None, 3)
    scored = case.policy.score(case.prompts[chosen], case.responses[chosen], Sampling())
    assert_close(scored, case.expected[chosen])


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_padded_batch_of_transformers_agrees(case: Case, side: str) -> None:
    """The same numbers come from the model's ordinary forward pass on padded rows: the reference fits the real model."""
    rows = [np.concatenate(pair) for pair in zip(case.prompts, case.responses, strict=True)]
    longest = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    starts = [longest - len(row) if side == "left" else 0 for row in rows]
    for i, (row, start) in enumerate(zip(rows, starts, strict=True)):
        ids[i, start : start + len(row)] = torch.from_numpy(row.astype(np.int64))
        mask[i, start : start + len(row)] = 1
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.inference_mode():
        logits = case.policy.model(input_ids=ids, attention_mask=mask, position_ids=positions).logits
    got = []
    for i, (prompt, response) in enumerate(zip(case.prompts, case.responses, strict=True)):
        first = starts[i] + len(prompt)
        table = torch.log_softmax(logits[i, first - 1 : first - 1 + len(response)], -1)
        got.append(table[torch.arange(len(response)), torch.from_numpy(response.astype(np.int64))].numpy())
    assert_close(got, case.expected)


@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.6])
def test_temperature_and_entropy(case: Case, temperature: float) -> None:
    with torch.no_grad():
        got, entropies = forward(case.policy, case.prompts, case.responses, Sampling(temperature=temperature))
        tables = [
            case.reference.log_distribution(p.tolist(), r.tolist(), temperature)
            for p, r in zip(case.prompts, case.responses, strict=True)
        ]
    table = torch.cat(tables)
    targets = torch.from_numpy(np.concatenate(case.responses).astype(np.int64))
    tolerance = TOLERANCE / min(1.0, temperature)  # a low temperature magnifies the rounding of the logits
    torch.testing.assert_close(got.double(), table[torch.arange(len(table)), targets], rtol=0, atol=tolerance)
    expected_entropy = -(table.exp() * table).sum(-1)
    torch.testing.assert_close(entropies.double(), expected_entropy, rtol=0, atol=tolerance)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_gradients(case: Case, temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """d(sum of randomly weighted log-probs)/d(every weight), through shared prompts and the chunked backward pass."""
    monkeypatch.setattr(logprobs_module, "CHUNK_ELEMENTS", 97 * 7)  # several chunks, the last one ragged
    rng = np.random.default_rng(11)
    weights = [rng.normal(size=len(response)) / 10 for response in case.responses]
    case.policy.model.zero_grad()
    got, _ = forward(case.policy, case.prompts, case.responses, Sampling(temperature=temperature))
    (got * torch.from_numpy(np.concatenate(weights)).float()).sum().backward()
    total = torch.zeros((), dtype=torch.float64)
    for prompt, response, weight in zip(case.prompts, case.responses, weights, strict=True):
        logprobs = case.reference.logprobs(prompt.tolist(), response.tolist(), temperature)
        total = total + (logprobs * torch.from_numpy(weight)).sum()
    names = list(case.reference.weights)
    expected = torch.autograd.grad(total, [case.reference.weights[name] for name in names])
    parameters = dict(case.policy.model.named_parameters())
    assert set(parameters) == set(names)
    for name, reference in zip(names, expected, strict=True):
        gradient = parameters[name].grad
        assert gradient is not None, name
        torch.testing.assert_close(
            gradient.double(), reference, rtol=1e-4, atol=TOLERANCE, msg=lambda text, name=name: f"{name}: {text}"
        )
    case.policy.model.zero_grad()
