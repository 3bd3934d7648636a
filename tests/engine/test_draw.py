"""Drawing tokens: the distribution, its truncations, and the uniforms that it is drawn with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reasonloop.config import Sampling
from reasonloop.engine.draw import draw, uniforms
from reasonloop.policy.logprobs import Head, target_logprobs
from reasonloop.records import Place

LARGEST_UNIFORM = 1.0 - 2.0**-53


def chi_square(observed: np.ndarray, expected: np.ndarray) -> float:
    """The statistic in standard deviations from its mean (normal for the cell counts used here)."""
    used = expected >= 10
    tail_observed, tail_expected = observed[~used].sum(), expected[~used].sum()
    cells = ((observed[used] - expected[used]) ** 2 / expected[used]).sum()
    freedom = int(used.sum()) - 1
    if tail_expected >= 10:
        cells += (tail_observed - tail_expected) ** 2 / tail_expected
        freedom += 1
    return float((cells - freedom) / np.sqrt(2 * freedom))


def reference_distribution(logits: np.ndarray, sampling: Sampling) -> np.ndarray:
    """float64 [V], by the definitions: temperature, top-k, top-p on what is left, min-p on what is left."""
    scaled = logits.astype(np.float64) / sampling.temperature
    probs = np.exp(scaled - scaled.max())
    ranked = np.argsort(-probs, kind="stable")
    if sampling.top_k:
        probs[ranked[sampling.top_k :]] = 0
    probs /= probs.sum()
    if sampling.top_p < 1:
        before = np.cumsum(probs[ranked]) - probs[ranked]
        probs[ranked[before >= sampling.top_p]] = 0
    probs[probs < sampling.min_p * probs.max()] = 0
    return probs / probs.sum()


SETTINGS = [
    Sampling(),
    Sampling(temperature=0.6),
    Sampling(top_p=0.8),
    Sampling(top_k=4),
    Sampling(min_p=0.1),
    Sampling(temperature=1.3, top_k=150, top_p=0.95, min_p=0.01),
]


CASES = [
    *((vocabulary, SETTINGS[0]) for vocabulary in (5, 255, 256, 257, 1000)),
    *((5, sampling) for sampling in SETTINGS[1:]),
    *((257, sampling) for sampling in SETTINGS[1:]),
    (255, SETTINGS[-1]),
    (256, SETTINGS[2]),
    (1000, SETTINGS[3]),
]


@pytest.mark.parametrize(("vocabulary", "sampling"), CASES, ids=str)
def test_draws_follow_the_distribution(vocabulary: int, sampling: Sampling) -> None:
    draws, batch = 102_400, 2048
    logits = np.random.default_rng(vocabulary).normal(scale=1.5, size=vocabulary).astype(np.float32)
    expected = reference_distribution(logits, sampling)
    keys = np.full(batch, Place(stage="chi").draw(7, "p", 0), dtype=np.uint64)
    counts = np.zeros(vocabulary)
    rows = torch.from_numpy(logits).expand(batch, -1)
    for start in range(0, draws, batch):
        u = uniforms(keys, np.arange(start, start + batch))
        drawn, logprobs = draw(rows.clone(), torch.from_numpy(u), sampling)
        counts += np.bincount(drawn.numpy(), minlength=vocabulary)
        if start == 0:
            np.testing.assert_allclose(logprobs.numpy(), np.log(expected[drawn.numpy()]), rtol=0, atol=1e-5)
    assert counts[expected == 0].sum() == 0
    assert chi_square(counts, expected * draws) < 4.5


def inverse_cdf(logits: np.ndarray, u: float) -> int:
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return int(np.searchsorted(np.cumsum(weights), u * weights.sum(), side="right"))


@settings(max_examples=60)
@given(
    vocabulary=st.sampled_from([1, 2, 5, 192, 255, 256, 257, 384, 512, 700]),
    seed=st.integers(0, 10_000),
    u=st.floats(0, LARGEST_UNIFORM),
    banned=st.floats(0, 0.95),
)
def test_a_draw_inverts_the_cdf_and_never_takes_a_banned_token(
    vocabulary: int, seed: int, u: float, banned: float
) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=3, size=vocabulary).astype(np.float32)
    logits[rng.random(vocabulary) < banned] = -np.inf
    logits[rng.integers(vocabulary)] = 1.0
    drawn, logprob = draw(torch.from_numpy(logits)[None].clone(), torch.tensor([u], dtype=torch.float64), Sampling())
    token = int(drawn[0])
    assert logits[token] > -np.inf
    weights = np.exp(logits.astype(np.float64) - logits.max())
    probs = weights / weights.sum()
    assert float(logprob[0]) == pytest.approx(np.log(probs[token]), abs=1e-5)
    if token != inverse_cdf(logits, u):  # only where u falls on a border, to float32's precision of the weights
        cdf = np.cumsum(probs)
        assert np.abs(cdf - u).min() < 1e-6


@pytest.mark.parametrize("u", [0.0, 2.0**-53, 0.5, LARGEST_UNIFORM])
@pytest.mark.parametrize("vocabulary", [1, 5, 256, 300])
def test_edges(u: float, vocabulary: int) -> None:
    for place in {0, vocabulary // 2, vocabulary - 1}:
        one_hot = torch.full((1, vocabulary), float("-inf"))
        one_hot[0, place] = 3.0
        token, logprob = draw(one_hot, torch.tensor([u], dtype=torch.float64), Sampling())
        assert (int(token), float(logprob)) == (place, 0.0)
        sharp = torch.zeros(1, vocabulary)
        sharp[0, place] = 1e4
        token, logprob = draw(sharp, torch.tensor([u], dtype=torch.float64), Sampling())
        assert (int(token), float(logprob)) == (place, 0.0)
    ends = torch.tensor([[0.0], [LARGEST_UNIFORM]], dtype=torch.float64)
    first, last = (draw(torch.zeros(1, vocabulary), x, Sampling())[0] for x in ends)
    assert (int(first), int(last)) == (0, vocabulary - 1)


def test_greedy_limits_agree() -> None:
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(64, 300)).astype(np.float32))
    u = uniforms(np.arange(64, dtype=np.uint64), np.zeros(64, np.int64))
    best = logits.argmax(-1)
    for sampling in (Sampling(temperature=1e-4), Sampling(top_k=1), Sampling(top_p=1e-6), Sampling(min_p=0.999999)):
        drawn, logprobs = draw(logits.clone(), torch.from_numpy(u), sampling)
        assert torch.equal(drawn, best), sampling
        torch.testing.assert_close(logprobs, torch.zeros(64), rtol=0, atol=1e-5)


@pytest.mark.parametrize("sampling", SETTINGS, ids=str)
def test_the_learner_sees_the_log_probs_that_were_drawn_with(sampling: Sampling) -> None:
    rng = np.random.default_rng(1)
    hidden = torch.from_numpy(rng.normal(size=(500, 16)).astype(np.float32))
    head = Head(torch.from_numpy(rng.normal(size=(300, 16)).astype(np.float32) / 2))
    u = uniforms(np.arange(500, dtype=np.uint64), np.zeros(500, np.int64))
    drawn, logprobs = draw(head.logits(hidden), torch.from_numpy(u), sampling)
    scored, _ = target_logprobs(hidden, head, drawn, sampling)
    torch.testing.assert_close(scored, logprobs, rtol=0, atol=1e-5)


def test_uniforms_are_uniform_and_addresses_independent() -> None:
    addresses = [
        Place(stage=stage, iteration=iteration, step=step).draw(seed, problem, sample)
        for seed in (0, 1)
        for stage in ("explore", "eval/test")
        for iteration in (0, 1)
        for step in (0, 1)
        for problem in ("a", "b")
        for sample in range(4)
    ]
    assert len(set(addresses)) == len(addresses)
    rows, length = len(addresses), 4096
    keys = np.repeat(np.array(addresses, dtype=np.uint64), length)
    u = uniforms(keys, np.tile(np.arange(length), rows)).reshape(rows, length)
    assert u.dtype == np.float64
    assert u.min() >= 0
    assert u.max() < 1
    counts = np.histogram(u, bins=1000, range=(0, 1))[0]
    assert chi_square(counts.astype(float), np.full(1000, u.size / 1000)) < 4.5
    pairs = np.histogram2d(u[:, :-1].ravel(), u[:, 1:].ravel(), bins=30, range=[[0, 1], [0, 1]])[0].ravel()
    assert chi_square(pairs, np.full(900, pairs.sum() / 900)) < 4.5  # neighbours within a response
    correlation = np.corrcoef(u)
    np.fill_diagonal(correlation, 0)
    assert np.abs(correlation).max() * np.sqrt(length) < 5  # between any two responses, in standard deviations
    shifted = [np.corrcoef(u[0, lag:], u[1, : length - lag])[0, 1] for lag in range(1, 20)]
    assert np.abs(shifted).max() * np.sqrt(length) < 5
    assert len(np.unique(u)) == u.size


def test_draws_are_the_same_in_every_arm_and_process_and_others_in_twins() -> None:
    """Pinned: a stored rollout's draws can be made again by another release."""
    place = Place("main", "explore", 2, 3)
    assert place.draw(1, "p", 4) == replace(place, branch="vanilla").draw(1, "p", 4) == 14111636871045580859
    twins = [replace(place, branch=f"{arm}.{twin}") for twin in (1, 2) for arm in ("main", "vanilla")]
    draws = [twin.draw(1, "p", 4) for twin in twins]
    assert draws[0] == draws[1]
    assert draws[2] == draws[3]
    assert len({place.draw(1, "p", 4), *draws}) == 3


def splitmix64(state: int) -> float:
    """Steele, Lea, Flood 2014, in plain integers: the first output after `state`, as a uniform."""
    mask = (1 << 64) - 1
    z = (state + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return float((z ^ (z >> 31)) >> 11) * 2.0**-53


@given(key=st.integers(0, 2**64 - 1), position=st.integers(0, 2**31))
def test_uniforms_are_splitmix64(key: int, position: int) -> None:
    state = (key + position * 0x9E3779B97F4A7C15) % 2**64
    assert uniforms(np.array([key], np.uint64), np.array([position]))[0] == splitmix64(state)
