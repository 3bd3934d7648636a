"""What loading a model costs: one copy of it, in the type that it computes in."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from run_fixtures import server

MIB = 1 << 20


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of 40 MiB in bfloat16, in several files."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from reasonloop.tasks.countdown.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=512,
        intermediate_size=2048,
        num_hidden_layers=10,
        num_attention_heads=8,
        eos_token_id=tokenizer.eos_token_id,
    )
    folder = tmp_path_factory.mktemp("large") / "model"
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder, max_shard_size="20MB")
    tokenizer.save_pretrained(folder)
    return folder


def held() -> int:
    """Bytes of this process that are no file's: what it can't do without."""
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))


def measured(folder: str, dtype: str, result: Any) -> None:
    """Puts the model's bytes, and the most that were held more than before while it was loaded."""
    from reasonloop.policy.policy import Policy

    Policy.load("countdown", "cpu", dtype)  # what is imported and built once
    before, most, over = held(), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.is_set():
            most = max(most, held())
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    policy = Policy.load(folder, "cpu", dtype)
    over.set()
    watcher.join()
    result.put((sum(p.numel() * p.element_size() for p in policy.model.parameters()), most - before))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells what a process holds")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_host_holds_one_copy(dtype: str, large: Path) -> None:
    context = server()
    result = context.Queue()
    process = context.Process(target=measured, args=(str(large), dtype, result))
    process.start()
    size, most = result.get(timeout=60)
    process.join()
    assert size > 35 * MIB
    # what has the right type already stays a part of its file
    assert most < (1.3 * size if dtype == "float32" else 0.3 * size)
