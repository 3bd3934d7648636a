"""The control group that holds the memory of a sandbox's programs, where one can be made."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sandboxes import descendants, judge, needs_namespaces, usable
from test_sandbox_limits import MANY

from reasonloop.records import Verdict
from reasonloop.verify.sandbox import group
from reasonloop.verify.sandbox.limits import Limits
from reasonloop.verify.sandbox.sandbox import Sandbox

made = group.memory_group(Limits())
if made is not None:
    made.close()
needs_group = pytest.mark.skipif(made is None, reason="this user can make no control group here")
LITTLE = Limits(memory_mib=64)
ROOM = Limits(timeout=10, memory_mib=1024)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """A sandbox whose helper sees no fault before 1,024 MiB, and whose group has 64 and what it adds to that."""
    monkeypatch.setattr(group, "memory_group", lambda limits: group.MemoryGroup(LITTLE))
    with Sandbox(ROOM) as sandbox:
        yield sandbox


@needs_namespaces
@needs_group
@pytest.mark.parametrize("wait", ["60", "0.5"])
def test_the_kernel_holds_all_processes_together(held, wait):
    """Also where the program itself goes on behind the processes that were killed, and would be right."""
    found = judge(held, MANY.replace("{wait}", wait), "assert f(3, 120, False) == 1")
    assert (found.verdict, "MiB together" in found.detail) == (Verdict.CRASHED, True), found
    assert usable(held)  # the next one has its own account
    assert judge(held, MANY.replace("{wait}", "0.2"), "assert f(2, 10, False) == 1").verdict is Verdict.RIGHT


@needs_namespaces
@needs_group
def test_the_program_alone_is_in_it(held):
    held.start()
    helper = held._helper._process.pid
    folder = held._helper._group._folder
    until = time.monotonic() + 20
    while (
        inside := set(map(int, (folder / "cgroup.procs").read_text().split()))
    ) == set() and time.monotonic() < until:
        time.sleep(0.01)
    assert len(inside) == 1
    assert inside < descendants(helper)


@needs_namespaces
@needs_group
def test_it_goes_with_its_sandbox():
    with Sandbox(Limits()) as sandbox:
        assert usable(sandbox)
        folder = sandbox._helper._group._folder
        assert folder.is_dir()
    assert not folder.exists()


@needs_group
def test_one_whose_owner_was_killed_goes_with_the_next():
    script = """
        from reasonloop.verify.sandbox.group import MemoryGroup
        from reasonloop.verify.sandbox.limits import Limits
        print(MemoryGroup(Limits())._folder, flush=True)
        input()
    """
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with owner:
        folder = Path(owner.stdout.readline().strip())
        group.MemoryGroup(LITTLE).close()
        assert folder.is_dir()  # it has an owner
        owner.kill()
    group.MemoryGroup(LITTLE).close()
    assert not folder.exists()


@needs_group
def test_many_at_once_all_get_one():
    """One that is being made may be taken for a dead owner's by another: it is made again."""
    with ThreadPoolExecutor(4) as threads:
        found = [*threads.map(lambda _: group.memory_group(LITTLE), range(120))]
    assert None not in found
    for one in found:
        one.close()


@needs_namespaces
@pytest.mark.parametrize(
    "told", ["", "0::/\n", "0::/../elsewhere\n", "5:memory:/nowhere/at/all\n", "5:cpu:/\n0::/a/b\n"]
)
def test_without_one_the_helper_looks(told, tmp_path, monkeypatch):
    own = tmp_path / "cgroup"
    own.write_text(told)
    monkeypatch.setattr(group, "_OWN", own)
    assert group.memory_group(Limits()) is None
    with Sandbox(Limits(memory_mib=256)) as sandbox:
        assert usable(sandbox)
        found = judge(sandbox, MANY.replace("{wait}", "60"), "assert f(3, 120, False) == 1")
        assert (found.verdict, "MiB together" in found.detail) == (Verdict.CRASHED, True), found


def test_where_it_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(group, "_OWN", tmp_path / "own")
    monkeypatch.setattr(group, "_ROOT", tmp_path)
    (tmp_path / "own").write_text("9:name=systemd:/\n4:cpu,memory:/user/7\n0::/\n")
    assert group._place() == (group._FIRST, tmp_path / "memory/user/7")
    (tmp_path / "own").write_text("0::/app.slice/run-7.scope\n")
    (tmp_path / "app.slice").mkdir()
    (tmp_path / "app.slice/cgroup.subtree_control").write_text("cpu memory pids\n")
    assert group._place() == (group._SECOND, tmp_path / "app.slice")
    (tmp_path / "app.slice/cgroup.subtree_control").write_text("cpu pids\n")
    with pytest.raises(OSError, match="hands a memory limit down"):
        group._place()
