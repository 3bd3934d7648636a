"""The docker backend: the program and the checker each in a container of their own, with this process between them.

Only used where a recipe names it. Slower than namespaces by the start of two containers an item. The image needs Python
>= 3.11 as `python`, and has to be there already or to be pulled by docker.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import Any

from reasonloop.errors import InputError
from reasonloop.verify.answers import one_line
from reasonloop.verify.sandbox import guest
from reasonloop.verify.sandbox.limits import GUEST, Interpreter, Limits, refusal
from reasonloop.verify.sandbox.wire import WireError

START_LIMIT = 120.0
"""Seconds for the containers to start, an image to be pulled included."""
_TESTS_MEMORY_MIB = 1024


def command(name: str, image: str, limits: Limits, memory_mib: int) -> list[str]:
    """The command line of a container's Python: no network, nothing writable but the scratch folder, no privileges."""
    cpu_seconds = int(limits.timeout) + 1
    return [
        *("docker", "run", "--rm", "--interactive", "--name", name, "--log-driver", "none"),
        *("--network", "none", "--ipc", "none", "--hostname", "sandbox"),
        *("--read-only", "--workdir", "/scratch"),
        *("--tmpfs", f"/scratch:rw,noexec,nosuid,nodev,size={limits.scratch_mib}m,mode=1777"),
        *("--user", "65534:65534", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *("--pids-limit", str(limits.processes), "--cpus", "1"),
        *("--memory", f"{memory_mib}m", "--memory-swap", f"{memory_mib}m"),
        *("--ulimit", "core=0", "--ulimit", "nofile=64", "--ulimit", f"cpu={cpu_seconds}"),
        *("--ulimit", f"fsize={limits.scratch_mib << 20}", "--env", "PYTHONHASHSEED=0"),
        *(image, "python"),
    ]


class Docker:
    """Judges every item in two new containers. Raises InputError if docker doesn't answer."""

    def __init__(self, limits: Limits, image: str) -> None:
        self._limits, self._image = limits, image
        if shutil.which("docker") is None:
            raise refusal('backend = "docker", and there is no docker command')
        try:
            done = subprocess.run(["docker", "version"], capture_output=True, text=True, timeout=30)
        except subprocess.TimeoutExpired:
            raise refusal('backend = "docker", and docker does not answer') from None
        if done.returncode != 0:
            raise refusal(f'backend = "docker", and docker says: {done.stderr.strip() or done.stdout.strip()}')

    def ask(self, item: Mapping[str, Any]) -> dict[str, str]:
        """The verdict on an item (see `guest.check`). Raises InputError if the containers don't start."""
        limits, image = self._limits, self._image
        with (
            closing(_Container(image, limits, limits.memory_mib)) as program,
            closing(_Container(image, limits, _TESTS_MEMORY_MIB)) as checker,
        ):
            try:
                with _killed_after(START_LIMIT, program, checker):
                    program.run(GUEST, "serve_over_stdio")
                    checker.run(GUEST, "check_over_stdio")
                    ready = program.receive() == ["ready"] and checker.receive() == ["ready"]
            except (EOFError, OSError, WireError):
                ready = False
            if not ready:
                raise refusal(f'backend = "docker", and the image {image!r} does not start: {program.error()}')
            with _killed_after(limits.timeout, program, checker) as late:
                try:
                    verdict = _relay(item, program, checker)
                except (EOFError, OSError, WireError) as error:
                    detail = f"the checker's container ended: {one_line(str(error), 200)}"
                    verdict = {"verdict": "crashed", "detail": detail}
            if late.is_set():  # what was told then was told of a program that was being killed
                return {"verdict": "timeout", "detail": f"no verdict within {limits.timeout:g} s"}
            return verdict

    def close(self) -> None:
        """Nothing runs between two items."""


@contextmanager
def _killed_after(seconds: float, *containers: _Container) -> Iterator[threading.Event]:
    """Kill the containers, and set the event, if the block takes longer."""
    late = threading.Event()

    def end() -> None:
        late.set()
        for container in containers:
            container.kill()

    timer = threading.Timer(seconds, end)
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()


def _relay(item: Mapping[str, Any], program: _Container, checker: _Container) -> dict[str, Any]:
    """Carry the checker's requests to the program, and replies back, until there is a verdict."""
    checker.send(dict(item))
    while True:
        kind, message = checker.receive()
        if kind == "verdict":
            return message
        try:
            program.send(message)
            reply = ["reply", program.receive()]
        except WireError as error:
            reply = ["end", "wrong", f"the program sent {error}"]
        except (EOFError, OSError):
            reply = ["end", *guest.ended(program.exit_code()).args]
        checker.send(reply)


class _Container(Interpreter):
    def __init__(self, image: str, limits: Limits, memory_mib: int) -> None:
        self._name = f"reasonloop-{uuid.uuid4().hex[:12]}"
        try:
            # a file: nobody reads while it runs, and a full pipe would hold the client up
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115
            super().__init__(command(self._name, image, limits, memory_mib), stderr=self._errors)
        except OSError as error:
            raise InputError(f'backend = "docker": the docker command cannot be run ({error.strerror})') from None

    def exit_code(self) -> int | None:
        """Of a program that has ended by itself, a signal's negative; None: it still runs."""
        with suppress(subprocess.TimeoutExpired):
            status = self._process.wait(2)
            return status if status < 128 else 128 - status
        return None

    def error(self) -> str:
        """What docker said, once its client has ended."""
        self.kill()
        self._process.wait()
        self._errors.seek(0)
        return one_line(self._errors.read(4096).decode(errors="replace"), 200) or "no reason given"

    def kill(self) -> None:
        """Kill the container, with all that runs in it. From any thread."""
        if self._process.poll() is None:
            with suppress(OSError, subprocess.TimeoutExpired):  # killing the client alone would leave the container
                subprocess.run(["docker", "kill", self._name], capture_output=True, timeout=30)
            self._process.kill()

    def close(self) -> None:
        super().close()
        self._errors.close()
