"""The docker backend: the program and the checker each in a container of their own, with this process between them.

Only used where a recipe names it. Slower than namespaces by the start of two containers an item. The image needs Python
>= 3.11 as `python`, and has to be there already or to be pulled by docker.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
import uuid
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from reasonloop.errors import InputError
from reasonloop.verify.answers import one_line
from reasonloop.verify.sandbox.limits import BOOT, GUEST, Limits, refusal, sources
from reasonloop.verify.sandbox.wire import WireError, receive, send

START_LIMIT = 120.0
"""Seconds for the containers to start, an image to be pulled included."""
_TESTS_MEMORY_MIB = 1024


def command(name: str, image: str, limits: Limits, memory_mib: int) -> list[str]:
    """The command line of one container: no network, nothing writable but the scratch folder, no privileges."""
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
        *(image, "python", "-S", "-s", "-P", "-B", "-X", "utf8", "-c", BOOT),
    ]


def require_docker() -> None:
    """Return if docker answers. Raises InputError."""
    if shutil.which("docker") is None:
        raise refusal('backend = "docker", and there is no docker command')
    try:
        done = subprocess.run(["docker", "version"], capture_output=True, text=True, timeout=30)
    except subprocess.TimeoutExpired:
        raise refusal('backend = "docker", and docker does not answer') from None
    if done.returncode != 0:
        raise refusal(f'backend = "docker", and docker says: {done.stderr.strip() or done.stdout.strip()}')


def judge(item: Mapping[str, Any], limits: Limits, image: str) -> dict[str, str]:
    """The checker's verdict on an item (see `guest.check`). Raises InputError if the containers don't start."""
    with (
        _Container(image, limits, limits.memory_mib) as program,
        _Container(image, limits, _TESTS_MEMORY_MIB) as checker,
    ):
        late = threading.Event()

        def end() -> None:
            late.set()
            program.kill()
            checker.kill()

        starting = threading.Timer(START_LIMIT, end)
        starting.start()
        try:
            program.send([sources(GUEST), "serve_over_stdio"])
            checker.send([sources(GUEST), "check_over_stdio"])
            ready = program.receive() == ["ready"] and checker.receive() == ["ready"]
        except (EOFError, OSError, WireError):
            ready = False
        finally:
            starting.cancel()
        if not ready:
            raise refusal(f'backend = "docker", and the image {image!r} does not start: {program.error()}')
        deadline = threading.Timer(limits.timeout, end)
        deadline.start()
        try:
            verdict = _relay(item, program, checker)
        except (EOFError, OSError, WireError) as error:
            verdict = {"verdict": "crashed", "detail": f"the checker's container ended: {one_line(str(error), 200)}"}
        finally:
            deadline.cancel()
        if late.is_set():  # what was told then was told of a program that was being killed
            return {"verdict": "timeout", "detail": f"no verdict within {limits.timeout:g} s"}
        return verdict


def _relay(item: Mapping[str, Any], program: _Container, checker: _Container) -> dict[str, str]:
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
            reply = ["end", *program.ended()]
        checker.send(reply)


class _Container:
    def __init__(self, image: str, limits: Limits, memory_mib: int) -> None:
        self._name = f"reasonloop-{uuid.uuid4().hex[:12]}"
        try:
            self._client = subprocess.Popen(
                command(self._name, image, limits, memory_mib),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as error:
            raise InputError(f'backend = "docker": the docker command cannot be run ({error.strerror})') from None
        # read all the time: a full pipe would hold the client up
        self._errors: list[bytes] = []
        self._reader = threading.Thread(target=self._read_errors, daemon=True)
        self._reader.start()

    def __enter__(self) -> _Container:
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()
        self._client.wait()
        self._reader.join()
        for pipe in (self._client.stdin, self._client.stdout, self._client.stderr):
            if pipe is not None:
                pipe.close()

    def send(self, message: Any) -> None:
        assert self._client.stdin is not None
        send(self._client.stdin.fileno(), message)

    def receive(self) -> Any:
        assert self._client.stdout is not None
        return receive(self._client.stdout.fileno())

    def ended(self) -> tuple[str, str]:
        """(verdict, detail) of a program whose container has ended by itself."""
        try:
            status = self._client.wait(2)
        except subprocess.TimeoutExpired:
            return "wrong", "the program closed its pipes before its tests were done"
        if status >= 128:
            return "crashed", f"the program was killed by signal {status - 128}"
        return "wrong", f"the program ended itself (exit status {status}) before its tests were done"

    def error(self) -> str:
        """What docker said, once its client has ended."""
        self.kill()
        self._client.wait()
        self._reader.join()
        return one_line(b"".join(self._errors).decode(errors="replace"), 200) or "no reason given"

    def kill(self) -> None:
        """Kill the container, with all that runs in it. From any thread."""
        if self._client.poll() is None:
            with suppress(OSError, subprocess.TimeoutExpired):  # killing the client alone would leave the container
                subprocess.run(["docker", "kill", self._name], capture_output=True, timeout=30)
            self._client.kill()

    def _read_errors(self) -> None:
        assert self._client.stderr is not None
        for line in iter(lambda: self._client.stderr.read(4096), b""):  # type: ignore[union-attr]
            if sum(map(len, self._errors)) < 4096:
                self._errors.append(line)
