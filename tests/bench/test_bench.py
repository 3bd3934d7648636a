"""Machine measurements, FLOP counts against torch's own counter, the verb, and what benchmarks/ is made of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import FAMILIES, tiny_model, tiny_policy
from torch.utils.flop_counter import FlopCounterMode

from reasonloop.bench import ceilings
from reasonloop.bench import measure as bench
from reasonloop.cli import main
from reasonloop.machine.threads import SPINS, wait_briefly
from reasonloop.policy.stream import pack

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TINY = bench.Workload(batches=(1, 8), prompt=4, response=3, groups=1, seconds=0.0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small products instead of the machine's real peak: what is tested is the arithmetic on them."""
    monkeypatch.setattr(ceilings, "matrix_peak", lambda *args, torchs=False, **kwargs: 5e8 if torchs else 1e9)
    monkeypatch.setattr(ceilings, "memory_bandwidth", lambda *args, **kwargs: 1e9)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.syspath_prepend(str(BENCHMARKS / "peers"))


@pytest.mark.parametrize("family", ["llama", "llama_tied", "qwen3", "gpt2", "gpt_neox"])
def test_flops_are_those_that_torch_counts(family: str) -> None:
    """Forward pass on one full sequence; eager attention computes all length x length scores, and so does the count."""
    model, length = tiny_model(family), 7
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.arange(4, 4 + length)[None], use_cache=False)
    assert counter.get_total_flops() == ceilings.cost_of(model).training_flops(length, length, length * length) / 3


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
def test_bytes_of_keys_and_values_are_those_of_transformers_cache(family: str) -> None:
    model = tiny_model(family)
    cache = model(input_ids=torch.arange(4, 9)[None], use_cache=True).past_key_values
    held = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    cost = ceilings.cost_of(model)
    assert held == 5 * cost.keys
    without = cost.decoding_bytes(1, 0, 4)
    assert cost.decoding_bytes(3, 5, 4) - without == 4 * 3 * held


def test_every_weight_matrix_is_in_a_decoding_step() -> None:
    for family in FAMILIES:
        model = tiny_model(family)
        head = model.get_output_embeddings().weight
        flat = {p.data_ptr(): p.numel() for p in model.parameters() if p.dim() == 2}
        tables = {m.weight.data_ptr() for m in model.modules() if isinstance(m, torch.nn.Embedding)} - {head.data_ptr()}
        expected = sum(count for pointer, count in flat.items() if pointer not in tables)
        assert sum(weight.numel() for weight in ceilings.matrices(model)) == expected, family


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=3), min_size=1, max_size=4), st.integers(1, 12))
def test_a_streams_flops_count_what_each_token_sees(groups: list[list[int]], prompt_length: int) -> None:
    cost = ceilings.Cost(body=1000, head=100, attention=10, keys=0)
    prompts = [np.full(prompt_length, 5 + i, np.int32) for i, group in enumerate(groups) for _ in group]
    responses = [np.full(length, 3, np.int32) for group in groups for length in group]
    stream = pack(prompts, responses)
    pairs, tokens = 0, 0
    for group in groups:
        tokens += prompt_length + sum(length - 1 for length in group)
        pairs += prompt_length * (prompt_length + 1) // 2
        for length in group:
            pairs += sum(prompt_length + place for place in range(1, length))
    targets = sum(map(sum, groups))
    assert ceilings.stream_flops(cost, stream) == 6 * (1000 * tokens + 100 * targets) + 12 * 10 * pairs


@given(st.integers(1, 200), st.floats(1, 100), st.integers(1, 400), st.integers(0, 9))
def test_long_tailed_lengths_keep_their_bounds(count: int, mean: float, longest: int, seed: int) -> None:
    lengths = bench.long_tailed(np.random.default_rng(seed), count, mean, longest)
    assert lengths.shape == (count,)
    assert lengths.min() >= 1
    assert lengths.max() <= longest


def test_long_tailed_lengths_have_their_mean_and_stragglers() -> None:
    lengths = bench.long_tailed(np.random.default_rng(0), 100_000, 50, 10_000)
    assert lengths.mean() == pytest.approx(50, rel=0.02)
    assert np.quantile(lengths, 0.99) > 4 * np.median(lengths)


@pytest.mark.parametrize("kind", ["sft", "rl"])
@pytest.mark.parametrize("context", [40, 97, 200])
def test_a_context_is_packed_to_the_token(kind: str, context: int) -> None:
    policy = tiny_policy()
    examples = bench.examples_for(policy, kind, bench.Workload(context=context))
    assert bench.packed_work(policy, examples, context)[0] == context
    assert len(examples) == (bench.GROUP if kind == "rl" else 1)


def test_a_measurement_is_a_whole_result(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench, "Workload", lambda batches, context: TINY)
    file = tmp_path / "bench.json"
    assert main(["bench", "--threads", "1", "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    own = {"model", "peak", "sampling", "training"}
    assert set(result) == {"machine", "versions", "pairs", "median_ratio", "peer", "workload", *own}
    assert (result["pairs"], result["workload"]["batches"]) == ([], [1, 8])
    assert result["machine"]["threads"] == 1
    assert [row["batch"] for row in result["sampling"]] == [1, 8]
    for row in result["sampling"]:
        assert row["tokens_per_second"] > 0
        for kind in ("", "laid_out_"):
            ceiling = row[f"{kind}ceiling_tokens_per_second"]
            assert row[f"share_of_{kind}ceiling"] == pytest.approx(row["decoded_per_second"] / ceiling)
    assert [row["kind"] for row in result["training"]] == ["sft", "rl"]
    for row in result["training"]:
        seconds = row["targets"] / row["tokens_per_second"]
        assert row["share_of_peak"] == pytest.approx(row["flops"] / seconds / 1e9)
        assert row["share_of_torch_peak"] == pytest.approx(row["flops"] / seconds / 5e8)


def test_a_layout_needs_no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 97, "head_dim": 8}
    layout = bench.LAYOUTS["qwen3-0.6b"] | small | {"num_attention_heads": 4, "num_key_value_heads": 2}
    monkeypatch.setitem(bench.LAYOUTS, "qwen3-0.6b", layout)
    lines: list[str] = []
    result = bench.bench(layout="qwen3-0.6b", workload=TINY, threads=1, device="cpu", tell=lines.append)
    assert result["model"]["name"] == "qwen3-0.6b"
    assert len(lines) == 5


def test_the_real_layout_is_qwen3_with_0_6_billion() -> None:
    from transformers import AutoModelForCausalLM, Qwen3Config

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(Qwen3Config(**bench.LAYOUTS["qwen3-0.6b"]))
    assert model.num_parameters() == 596_049_920  # as its model card counts it


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--layout", "qwen9"], "--layout qwen9: unknown; expected one of qwen3-0.6b"),
        (["--context", "8192"], "needs a context of 8192 tokens, the model's has 256"),
        (["--model", "contdown"], "did you mean 'countdown'"),
        (["--context", "0"], "expected a whole number, at least 1"),
        (["--json", "/nowhere/x.json"], "no such folder"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--threads", "1", *arguments]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1


def test_doctor_and_result_files_need_no_torch() -> None:
    code = "import sys; from reasonloop.bench import doctor, result; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("policy", "spins", "expected"),
    [
        (None, None, ("PASSIVE", "1000")),
        ("passive", None, ("passive", "1000")),
        ("PASSIVE", "0", ("PASSIVE", "0")),
        ("ACTIVE", None, ("ACTIVE", None)),
    ],
)
def test_threads_wait_briefly_unless_the_environment_says_otherwise(
    policy: str | None, spins: str | None, expected: tuple[str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("OMP_WAIT_POLICY", policy), ("GOMP_SPINCOUNT", spins)):
        monkeypatch.setenv(name, value or "")  # so that it is put back, whatever is set meanwhile
        if value is None:
            monkeypatch.delenv(name)
    wait_briefly()
    assert (os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT")) == expected


@pytest.mark.parametrize(
    "code",
    ["from reasonloop.machine.threads import prepare_threads; prepare_threads(2)", "import reasonloop.bench.measure"],
)
def test_openmp_has_heard_it_when_torch_is_there(code: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment | {"OMP_DISPLAY_ENV": "verbose"}
    )
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("this torch doesn't use GNU OpenMP")
    assert f"GOMP_SPINCOUNT = '{SPINS}'" in done.stderr


# benchmarks/


def test_sides_take_turns_in_alternating_order(parts: None) -> None:
    from pairs import alternate, paired

    calls: list[tuple[str, int]] = []

    def side(name: str, seconds: float):
        def run(turn: int) -> float:
            calls.append((name, turn))
            return seconds * (100 if turn == 0 else turn)

        return run

    seconds = alternate({"ours": side("ours", 1.0), "peer": side("peer", 3.0)}, 3, tell=lambda text: None)
    assert seconds == {"ours": [1, 2, 3], "peer": [3, 6, 9]}  # the warm-up is not in it
    assert [turn for _, turn in calls] == [0, 0, 1, 1, 2, 2, 3, 3]
    first = [name for name, _ in calls[::2]]
    assert first[1:] in (["ours", "peer", "ours"], ["peer", "ours", "peer"])
    result = paired(seconds["ours"], seconds["peer"], "it", {})
    assert result["median_ratio"] == 3
    assert result["pairs"][1] == {"ours": 2, "peer": 6}
    assert paired([], [], None, {})["median_ratio"] is None


def test_a_result_file_has_the_documented_keys(parts: None, tmp_path: Path) -> None:
    from pairs import paired, write

    file = tmp_path / "results" / "x.json"
    write(paired([1.0], [2.0], "it", {"size": 1}), file, threads=1, peer_versions={"it": "1"})
    result = json.loads(file.read_text())
    assert {"machine", "versions", "pairs", "median_ratio", "peer", "workload"} <= set(result)
    assert result["versions"]["peers"] == {"it": "1"}


LENGTHS = [3, 1, 6, 2]


def test_forced_lengths_of_generate(parts: None) -> None:
    """An end-of-sequence token exactly at each row's length, and none before, with left-padded prompts."""
    from forced import EndAt, LengthReached
    from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

    model, width, eos = tiny_model("llama"), 5, 2
    ids = torch.randint(4, 90, (4, width))
    options = GenerationConfig(do_sample=True, max_new_tokens=8, pad_token_id=0, eos_token_id=[eos, 3])
    processors = LogitsProcessorList([EndAt(width, LENGTHS, [eos, 3])])
    out = model.generate(ids, generation_config=options, logits_processor=processors)[:, width:]
    assert out.shape[1] == max(LENGTHS)
    for row, length in zip(out.tolist(), LENGTHS, strict=True):
        assert row.index(eos) == length - 1
        assert 3 not in row[:length]
    model.generation_config.eos_token_id = None
    plain = GenerationConfig(do_sample=True, max_new_tokens=8, pad_token_id=0)
    stop = StoppingCriteriaList([LengthReached(width, LENGTHS)])
    assert model.generate(ids, generation_config=plain, stopping_criteria=stop).shape[1] == width + max(LENGTHS)


def test_a_peer_answers_and_its_death_is_told(parts: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import peer

    (tmp_path / "lines.py").write_text((BENCHMARKS / "peers" / "lines.py").read_text())
    (tmp_path / "echo.py").write_text(
        "import lines\nprint('library noise')\nlines.ready('numpy')\n"
        "for request in lines.requests():\n    lines.answer({'twice': 2 * request['n'], **lines.options()})\n"
    )
    monkeypatch.setattr(peer, "SCRIPTS", tmp_path)
    with peer.Peer("echo", sys.executable, 1, {"model": "m"}) as echo:
        assert echo.versions == {"numpy": np.__version__}
        assert echo.ask({"n": 4}) == {"twice": 8, "model": "m", "threads": 1}
        with pytest.raises(RuntimeError, match=r"(?s)the peer echo ended with code 1.*KeyError"):
            echo.ask({})


def test_every_group_of_the_step_has_a_gradient(parts: None) -> None:
    from step import verdicts

    for seed in range(20):
        drawn = np.array([str(verdict) for verdict in verdicts(np.random.default_rng(seed), 5)]).reshape(5, bench.GROUP)
        assert all(len(set(group)) == 2 for group in drawn)
        some = [str(verdict) for verdict in verdicts(np.random.default_rng(seed), 20, mixed=0.45)]
        assert [len(set(group)) for group in np.array(some).reshape(20, bench.GROUP)].count(2) == 9


def test_the_page_of_families_is_made_of_its_results(parts: None, capsys: pytest.CaptureFixture[str]) -> None:
    import family_page

    family_page.main()
    page = capsys.readouterr().out
    assert page == (BENCHMARKS.parent / "docs" / "families.md").read_text(encoding="utf-8")
    assert " refused, 0 wrong or crashed." in page
