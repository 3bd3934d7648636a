"""The plain path against transformers' own forward pass over each sequence alone: sampled, scored and learned."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from plain_models import CACHELESS, PACKED, PLAIN, save_plain
from sampler import Sampler, of_slots, prompt
from tiny_models import pairs, tiny_policy

from reasonloop.config import LoraSettings, Optimizer, Ppo, Sampling
from reasonloop.errors import InputError
from reasonloop.learner.batch import Example, supervised
from reasonloop.learner.critic import Critic
from reasonloop.learner.local import LocalLearner
from reasonloop.policy.logprobs import NoHead, target_logprobs
from reasonloop.policy.plain import PlainScorer
from reasonloop.policy.plain_check import plain_scorer
from reasonloop.policy.policy import Policy
from reasonloop.policy.stream import pack, split_by_tokens

TOLERANCE = 5e-5
SAMPLING = Sampling(max_tokens=12)


@dataclass
class Case:
    kind: str
    policy: Policy
    own: Any
    """transformers' model of the same weights"""
    prompts: list[np.ndarray]
    responses: list[np.ndarray]

    def alone(self, prompt: np.ndarray, response: np.ndarray) -> torch.Tensor:
        """Log-probs of a response's tokens, [T]."""
        ids = torch.from_numpy(np.concatenate([prompt, response]).astype(np.int64))
        logits = self.own(input_ids=ids[None, :-1], use_cache=False).logits[0, len(prompt) - 1 :].float()
        return logits.log_softmax(-1).gather(1, ids[len(prompt) :, None])[:, 0]


@pytest.fixture(scope="module", params=sorted(PLAIN | PACKED))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = save_plain(request.param, tmp_path_factory.mktemp("plain") / "model")
    own = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    return Case(request.param, Policy.load(folder, "cpu"), own, *pairs(5, groups=3, size=3, longest=20))


def test_the_path_is_taken_and_told(case: Case) -> None:
    if case.kind in PACKED:
        assert case.policy.path == "packed"
        assert not case.policy.notes()
        return
    assert case.policy.path == "plain"
    assert case.policy.reason
    scorer = case.policy.scorer
    assert isinstance(scorer, PlainScorer)
    assert scorer.pads
    assert (scorer.cache is None) == (case.kind in CACHELESS)
    (line,) = case.policy.notes()
    assert case.policy.reason in line
    assert ("anew" in line) == (case.kind in CACHELESS)


def test_scored_log_probs_and_gradients_are_those_of_each_row_alone(case: Case) -> None:
    rng = np.random.default_rng(0)
    pulls = [torch.from_numpy(rng.standard_normal(len(response)).astype(np.float32)) for response in case.responses]
    case.own.zero_grad()
    alone = [case.alone(*pair) for pair in zip(case.prompts, case.responses, strict=True)]
    torch.stack([(one * pull).sum() for one, pull in zip(alone, pulls, strict=True)]).sum().backward()
    for scored, one in zip(case.policy.score(case.prompts, case.responses, Sampling()), alone, strict=True):
        np.testing.assert_allclose(scored, one.detach().numpy(), rtol=0, atol=TOLERANCE)
    case.policy.model.zero_grad()
    (case.policy.scorer(pack(case.prompts, case.responses), Sampling()).logprobs * torch.cat(pulls)).sum().backward()
    gradients = {name: p.grad for name, p in case.policy.model.named_parameters()}
    expected = {name: p.grad for name, p in case.own.named_parameters() if p.grad is not None}
    largest = max(float(grad.abs().max()) for grad in expected.values())
    for name, grad in expected.items():
        assert float((gradients[name] - grad).abs().max()) < 1e-5 * largest, name
    case.policy.model.zero_grad(set_to_none=True)


def test_sampled_log_probs_are_those_of_each_row_alone_however_rows_are_batched(case: Case) -> None:
    asked = [prompt(str(i), tokens) for i, tokens in enumerate(case.prompts[::3])]
    few = Sampler(case.policy, of_slots(4)).sample(asked, 3, SAMPLING)
    many = Sampler(case.policy, of_slots(64)).sample(asked, 3, SAMPLING)
    for one, other in zip(few, many, strict=True):
        np.testing.assert_array_equal(one.response_tokens, other.response_tokens)
        with torch.no_grad():
            alone = case.alone(one.prompt_tokens, one.response_tokens)
        np.testing.assert_allclose(one.logprobs, alone.numpy(), rtol=0, atol=TOLERANCE)


def test_greedy_decoding_is_what_generate_gives_of_the_saved_policy(case: Case, tmp_path: Path) -> None:
    case.policy.save(tmp_path / "product")
    product = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "product").eval()
    asked = case.prompts[0]
    (greedy,) = Sampler(case.policy).sample([prompt("0", asked)], 1, SAMPLING.model_copy(update={"top_k": 1}))
    ids = torch.from_numpy(asked[None].astype(np.int64))
    use_cache = case.kind not in CACHELESS
    generated = product.generate(ids, do_sample=False, max_new_tokens=SAMPLING.max_tokens, use_cache=use_cache)
    np.testing.assert_array_equal(greedy.response_tokens, generated[0, len(asked) :].numpy())


def examples(case: Case, behaviour: list[np.ndarray]) -> list[Example]:
    total = sum(map(len, case.responses))
    return [
        Example(
            *pair,
            policy_weight=np.full(len(pair[1]), 1 / total),
            advantage=np.full(len(pair[1]), 1.0 if i % 2 else -1.0),
            behaviour=logprobs,
        )
        for i, (pair, logprobs) in enumerate(
            zip(zip(case.prompts, case.responses, strict=True), behaviour, strict=True)
        )
    ]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_an_update_is_the_same_however_it_is_cut(case: Case, checkpointing: bool) -> None:
    behaviour = case.policy.score(case.prompts, case.responses, Sampling())
    found = []
    for tokens in (10_000, 40):
        learner = LocalLearner(case.policy.copy(), Optimizer(microbatch_tokens=tokens), Sampling(), checkpointing)
        measured = learner.update(examples(case, behaviour), 1e-3)
        assert abs(measured["k1"]) < 1e-6
        assert learner.policy.path == case.policy.path
        found.append((measured["grad_norm"], learner.score([(case.prompts[0], case.responses[0])], Sampling())[0]))
    (norm, scored), (other_norm, other) = found
    assert norm == pytest.approx(other_norm, rel=1e-4)
    np.testing.assert_allclose(scored, other, rtol=0, atol=1e-3)
    assert np.abs(scored - behaviour[0]).max() > 1e-3


def test_an_adapter_learns_and_is_in_the_product(case: Case, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    policy = case.policy.copy()
    policy.adapt(LoraSettings(rank=2, alpha=4.0, targets="all-linear"))
    learner = LocalLearner(policy, Optimizer(), Sampling())
    learner.update(supervised(list(zip(case.prompts, case.responses, strict=True))), 1e-2)
    scored = policy.score(case.prompts, case.responses, Sampling())
    assert np.abs(scored[0] - case.policy.score(case.prompts[:1], case.responses[:1], Sampling())[0]).max() > 1e-3
    policy.save(tmp_path / "product")
    product = Policy.load(tmp_path / "product", "cpu")
    for one, other in zip(scored, product.score(case.prompts, case.responses, Sampling()), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=TOLERANCE)


def test_a_critic_has_a_value_before_each_token(case: Case) -> None:
    critic = Critic(case.policy, Ppo(), Optimizer())
    torch.nn.init.normal_(critic.head.weight)
    together = critic.score(case.prompts, case.responses, 10_000)
    apart = critic.score(case.prompts, case.responses, 1)
    for one, other, response in zip(together, apart, case.responses, strict=True):
        assert len(one) == len(response)
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-3)


def test_logits_in_the_place_of_hidden_states_give_the_same_under_every_distribution() -> None:
    policy = tiny_policy("gemma2_softcap", seed=2)
    rng = torch.Generator().manual_seed(0)
    hidden = torch.randn(9, 32, generator=rng)
    targets = torch.randint(0, 97, (9,), generator=rng)
    for sampling in (Sampling(), Sampling(temperature=0.7), Sampling(temperature=1.3, top_k=20, top_p=0.9)):
        given, head = hidden.clone().requires_grad_(), policy.head()
        ours = target_logprobs(head.logits(given), NoHead(), targets, sampling)
        expected_at = hidden.clone().requires_grad_()
        expected = target_logprobs(expected_at, head, targets, sampling)
        for one, other in zip(ours, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
        ours[0].sum().backward()
        expected[0].sum().backward()
        torch.testing.assert_close(given.grad, expected_at.grad, rtol=0, atol=1e-5)


def test_a_prompt_counts_for_each_of_its_responses_where_it_is_not_shared() -> None:
    prompts = [np.arange(30, dtype=np.int32)] * 4
    responses = [np.arange(11, dtype=np.int32)] * 4
    assert split_by_tokens(prompts, responses, 80) == [[0, 1, 2, 3]]
    plain = PlainScorer(tiny_policy().model).packing
    assert split_by_tokens(prompts, responses, 80, plain) == [[0, 1], [2, 3]]


def test_a_model_that_sees_what_comes_is_refused() -> None:
    config = transformers.BertConfig(
        vocab_size=97, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48
    )
    with torch.random.fork_rng():
        model = transformers.BertLMHeadModel(config).eval()
    with pytest.raises(InputError, match="no causal model"):
        plain_scorer(model, 97, "bert")
