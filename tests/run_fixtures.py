"""Small real runs: a weak model made in seconds, a recipe, and processes that die at a chosen change of a file."""

from __future__ import annotations

import atexit
import functools
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from faulty_disk import FaultyDisk

from reasonloop.runs.whole import wrong_in
from reasonloop.written.known import NAME, Written

TASK = {"name": "countdown", "numbers": [2], "max_number": 6, "min_target": 2, "train": 20, "probe": 2, "test": 5}
TIMINGS = {"seconds", "sampling_seconds", "tokens_per_second"}
_PRELOAD = ("torch", "transformers", "numpy", "duckdb", "pyarrow.parquet", "reasonloop.stages.live", "run_fixtures")


@functools.cache
def temporary() -> Path:
    """A folder that lives as long as the test process."""
    folder = Path(tempfile.mkdtemp(prefix="reasonloop-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@contextmanager
def stopping_at(place: int) -> Iterator[None]:
    """A run in this process stops, as Ctrl-C has it, where it may for the so-manieth time."""
    from reasonloop.runs.session import Session

    stop, count = Session.stop_point, 0

    def counted(run: Session) -> None:
        nonlocal count
        count += 1
        run.stopping = count == place
        stop(run)

    Session.stop_point = counted
    try:
        yield
    finally:
        Session.stop_point = stop


@functools.cache
def random_model() -> Path:
    """A randomly initialised Llama of 2 layers and hidden size 32 with the Countdown tokenizer; context of 48 tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from reasonloop.policy.policy import Policy
    from reasonloop.tasks.countdown.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=48,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        policy = Policy(LlamaForCausalLM(config), tokenizer)
    folder = temporary() / "random-model"
    policy.save(folder)
    return folder


@functools.cache
def weak_model() -> Path:
    """`random_model` after a few seconds of SFT on easy problems: some of its answers are right, so that RL has a signal."""
    from reasonloop.config import Optimizer, Sampling
    from reasonloop.learner.batch import supervised
    from reasonloop.learner.local import LocalLearner, scheduled
    from reasonloop.policy.policy import Policy
    from reasonloop.tasks.countdown.task import Countdown

    policy = Policy.load(random_model())
    options = {key: value for key, value in TASK.items() if key != "name"}
    found = Countdown(**options).demonstrations(1600, 1, skill=1.0, max_words=20)
    pairs = [(policy.codec.encode_prompt(problem), policy.codec.encode_response(text)) for problem, text in found]
    learner, updates = LocalLearner(policy, Optimizer(), Sampling()), 150
    for step in range(updates):
        batch = [pairs[i % len(pairs)] for i in range(step * 32, step * 32 + 32)]
        learner.update(supervised(batch), scheduled(1e-2, "cosine", step, updates, 5))
    folder = temporary() / "weak-model"
    policy.save(folder)
    return folder


def small_recipe(folder: Path) -> Path:
    """A recipe file in `folder` for runs that take a second or two with the weak model."""
    import tomli_w

    path = folder / "small.toml"
    recipe = {
        "method": "rloop",
        "threads": 1,
        "checkpoint_seconds": 0,
        "model": {"path": str(weak_model())},
        "task": TASK,
        "sampling": {"max_tokens": 14},
        "engine": {"slots": 32},
        "sft": {"demonstrations": 48, "batch_size": 16, "epochs": 1.0},
        "rl": {"steps": 3, "problems_per_step": 4, "group_size": 4, "learning_rate": 1e-3, "refill_rounds": 0},
        "rloop": {"iterations": 2, "hard_threshold": 1.0, "vanilla": True},
        "rft": {"batch_size": 8, "epochs": 2.0},
        "eval": {"samples": 4, "probe_samples": 2},
    }
    path.write_text(tomli_w.dumps(recipe), encoding="utf-8")
    return path


@functools.cache
def server() -> Any:
    """Forks from a process that has imported everything and started no thread: a fresh process in milliseconds."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOAD))
    return context


def start(
    argv: Sequence[str | Path],
    *,
    log: Path,
    watched: Path | None = None,
    kill_at: int = 0,
    cwd: Path | None = None,
    disk: FaultyDisk | None = None,
    largest: int = 0,
) -> BaseProcess:
    """`reasonloop ARGV` in a process of its own; its output goes to `log`.

    With `kill_at` it kills itself with SIGKILL just before its `kill_at`-th change (1 is the first) to a file in `watched`.
    `disk`: what goes wrong with its files. `largest`: bytes that no file of its may have more of, where there are any.
    """
    arguments = ([str(a) for a in argv], str(log), str(watched or ""), kill_at, str(cwd or os.getcwd()), disk, largest)
    process = server().Process(target=_command, args=arguments)
    process.start()
    return process  # type: ignore[no-any-return]


def finish(process: BaseProcess, seconds: float = 120) -> int:
    """Its exit code, negative for a signal."""
    process.join(seconds)
    assert process.exitcode is not None, "the process did not end"
    return process.exitcode


def command(argv: Sequence[str | Path], *, log: Path, **options: Any) -> int:
    """`start`, waited for."""
    return finish(start(argv, log=log, **options))


def _command(
    argv: list[str], log: str, watched: str, kill_at: int, cwd: str, disk: FaultyDisk | None, largest: int
) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(cwd)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    if kill_at:
        kill_at_change(Path(watched), kill_at)
    from reasonloop.cli import main

    if disk is not None:
        disk.install()
    if largest:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

    sys.exit(main(argv))


def kill_at_change(watched: Path, kill_at: int) -> None:
    """SIGKILL before the n-th change to a file: audit events come before what they announce."""
    left = kill_at

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal left
        if event == "open":
            path, _, flags = args
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link"):
            path = args[1] if event == "os.link" else args[0]
            if isinstance(args[-1], int) and args[-1] >= 0:  # relative to an open folder: rmtree at work
                path = str(watched) if watched.is_dir() else ""
        else:
            return
        if not isinstance(path, str | bytes | os.PathLike) or not os.fsdecode(path).startswith(str(watched)):
            return
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def outcome(folder: Path) -> dict[str, Any]:
    """What must not depend on how often a run was killed: every file's content but for timings, and the list of files."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir() or name == ".lock":
            continue
        if name in ("report.html", "config.toml") or path.name == "trainer.pt":
            found[name] = None  # the report shows timings; a pickle's bytes depend on object identities
        elif name == NAME:
            found[name] = wrong_in(Written.read(folder), whole=True)  # digests of timings, too
        elif (path.suffix == ".json" and path.parent.name == "evals") or name == "state.json":
            found[name] = _untimed(json.loads(path.read_text()))
        elif name == "metrics.jsonl":
            found[name] = [_untimed(json.loads(line)) for line in path.read_text().splitlines()]
        else:
            found[name] = path.read_bytes()
    return found


def _untimed(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in TIMINGS}


def metrics(folder: Path, **where: Any) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl with these values."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if all(line.get(key) == value for key, value in where.items())]
