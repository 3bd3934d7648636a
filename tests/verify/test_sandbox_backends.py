"""Where a sandbox can be made, where it is refused, and the docker backend (against a docker that only pretends)."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys

import pytest
from sandboxes import REPOSITORY, judge, needs_namespaces, told, usable

from reasonloop.errors import InputError
from reasonloop.records import Verdict
from reasonloop.verify.sandbox import docker as sandbox_docker
from reasonloop.verify.sandbox import sandbox as sandbox_module
from reasonloop.verify.sandbox import seccomp as sandbox_seccomp
from reasonloop.verify.sandbox.limits import Limits
from reasonloop.verify.sandbox.sandbox import Sandbox


@needs_namespaces
def test_an_ordinary_user_can_too(monkeypatch):
    if os.geteuid() != 0:
        pytest.skip("the other tests already run as an ordinary user")
    nobody = {"user": 65534, "group": 65534, "extra_groups": []}
    run = subprocess.Popen
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            ask = "import sys; sys.exit(sys.version_info < (3, 11))"
            if run([python, "-S", "-c", ask], stderr=subprocess.DEVNULL, cwd="/", **nobody).wait() == 0:
                break
        except OSError:
            continue
    else:
        pytest.skip("no Python >= 3.11 that another user may execute")
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: run(*a, **k, **nobody))
    monkeypatch.setattr(sandbox_module.sys, "executable", python)
    with Sandbox() as sandbox:
        try:
            sandbox.start()
        except InputError as error:
            pytest.skip(str(error))
        assert usable(sandbox)
        assert "Read-only" in told(sandbox, "open('/usr/lib/x', 'w')")
        body = """
            import os, time
            made = 0
            try:
                while made < 40:
                    if os.fork() == 0: time.sleep(60)
                    made += 1
            except OSError: pass
            return made
        """
        assert f"LookupError: {sandbox.limits.processes - 1} " in told(sandbox, body)


# ------------------------------------------------------------------------------------------------------------ refusal


@pytest.mark.skipif(sys.platform != "linux" or not sandbox_seccomp.supported(), reason="needs a filter to forbid it")
def test_where_namespaces_are_forbidden_nothing_runs(tmp_path):
    marker = tmp_path / "ran"
    script = f"""
import sys
from reasonloop.errors import InputError
from reasonloop.verify.sandbox import kernel as sandbox_kernel, seccomp as sandbox_seccomp
from reasonloop.verify.sandbox.sandbox import Sandbox
sandbox_kernel._libc.prctl(38, 1, 0, 0, 0)
sandbox_seccomp.install()
try:
    Sandbox().judge("open({str(marker)!r}, 'w')", "f()")
except InputError as error:
    print(error)
    sys.exit(2)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY)
    assert (done.returncode, marker.exists()) == (2, False), done.stderr
    assert "namespace" in done.stdout
    assert 'backend = "docker"' in done.stdout
    assert done.stdout.count("\n") == 1


def test_another_system_is_refused(monkeypatch):
    monkeypatch.setattr(sandbox_module.sys, "platform", "darwin")
    with pytest.raises(InputError, match=r"this is darwin.*docker"):
        Sandbox().judge("", "")


@pytest.mark.parametrize("options", [{"timeout": 0}, {"memory_mib": 1}, {"processes": 0}, {"timeout": float("nan")}])
def test_limits_that_are_none_are_refused(options):
    with pytest.raises(InputError, match=f"sandbox {next(iter(options))}: got"):
        Limits(**options)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_refuses_what_it_lists_and_nothing_else(machine):
    code = sandbox_seccomp.filter_program(machine)
    column, architecture = sandbox_seccomp._ARCHITECTURES[machine]
    refused = {numbers[column] for numbers in sandbox_seccomp._DENIED.values()} - {None}
    special = {name: numbers[column] for name, numbers in sandbox_seccomp._CALLS.items()}
    for number in range(600):
        if number not in special.values():
            assert (_run(code, number, architecture, 0) == 0x00050001) == (number in refused), number
    assert _run(code, 0, architecture ^ 1, 0) == 0x80000000
    assert _run(code, special["clone3"], architecture, 0) == 0x00050026
    assert _run(code, special["clone"], architecture, 0x01200011) == 0x7FFF0000  # a fork
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert _run(code, special["clone"], architecture, flag | 17) == 0x00050001
    assert [_run(code, special["socket"], architecture, family) for family in (1, 2, 10, 16, 40)] == [0x7FFF0000] + [
        0x00050001
    ] * 4


def _run(code: bytes, number: int, architecture: int, argument: int) -> int:
    """An interpreter of the few classic BPF instructions that the filter uses."""
    data = {0: number, 4: architecture, 16: argument}
    steps = [struct.unpack_from("=HBBI", code, at) for at in range(0, len(code), 8)]
    at, value = 0, 0
    while True:
        operation, yes, no, constant = steps[at]
        at += 1
        if operation == 0x20:
            value = data[constant]
        elif operation == 0x06:
            return constant
        else:
            holds = {0x15: value == constant, 0x35: value >= constant, 0x45: bool(value & constant)}[operation]
            at += yes if holds else no


FAKE = """#!{python} -SEs
import os, signal, sys
arguments, state = sys.argv[1:], {state!r}
with open(state + "/log", "a") as log: log.write(repr(arguments) + "\\n")
if arguments[0] == "run":
    name = arguments[arguments.index("--name") + 1]
    if "missing" in arguments: sys.exit("docker: no such image")
    with open(state + "/" + name, "w") as file: file.write(str(os.getpid()))
    at = arguments.index("python")
    os.execv(sys.executable, [sys.executable, *arguments[at + 1 :]])
elif arguments[0] == "kill":
    try: os.kill(int(open(state + "/" + arguments[1]).read()), signal.SIGKILL)
    except (OSError, ValueError): sys.exit(1)
elif os.path.exists(state + "/down"): sys.exit("cannot connect to the daemon")
"""


@pytest.fixture
def docker(tmp_path, monkeypatch):
    """A `docker` that runs the container's command as it is, here."""
    folder, state = tmp_path / "bin", tmp_path / "state"
    folder.mkdir()
    state.mkdir()
    (folder / "docker").write_text(FAKE.format(python=sys.executable, state=str(state)))
    (folder / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return state


def test_docker_judges(docker):
    with Sandbox(Limits(timeout=10), backend="docker", image="some-image") as sandbox:
        assert usable(sandbox)
        assert judge(sandbox, "def f(n): return n", "assert f(1) == 2").verdict is Verdict.WRONG
        assert judge(sandbox, "import os\ndef f(n): os._exit(0)", "assert f(1) == 2").verdict is Verdict.WRONG
    log = (docker / "log").read_text()
    assert "'--network', 'none'" in log
    assert "some-image" in log


def test_docker_keeps_the_deadline(docker):
    with Sandbox(Limits(timeout=0.5), backend="docker") as sandbox:
        assert judge(sandbox, "def f(n):\n  while True: pass", "assert f(1)").verdict is Verdict.TIMEOUT
    for name in docker.glob("reasonloop-*"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(name.read_text()), 0)


def test_docker_that_cannot_start_is_refused(docker, monkeypatch):
    with pytest.raises(InputError, match="'missing' does not start: docker: no such image"):
        Sandbox(backend="docker", image="missing").judge("", "f()")
    (docker / "down").touch()
    with pytest.raises(InputError, match="cannot connect to the daemon"):
        Sandbox(backend="docker").start()
    monkeypatch.setenv("PATH", "/nowhere")
    assert shutil.which("docker") is None
    with pytest.raises(InputError, match="no docker command"):
        Sandbox(backend="docker").start()


def test_the_docker_command_line_takes_everything_away():
    line = sandbox_docker.command("n", "image", Limits(processes=5, scratch_mib=7), 300)
    text = " ".join(line[: line.index("image")])
    for part in (
        "docker run --rm --interactive",
        "--network none",
        "--read-only",
        "size=7m",
        "--pids-limit 5",
        "--memory 300m --memory-swap 300m",
        "--cpus 1",
        "--cap-drop ALL",
        "--security-opt no-new-privileges",
        "--user 65534:65534",
    ):
        assert part in text, part
    for part in ("--privileged", "--volume", "-v ", "--mount", "--env-file", "--pid", "--network host"):
        assert part not in text.replace("--pids-limit", ""), part
