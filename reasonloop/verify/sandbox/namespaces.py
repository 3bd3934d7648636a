"""The helper that makes a sandbox for every item out of namespaces. Runs by itself, free of threads; standard library only.

    helper      its own user, mount, network, ipc, uts namespaces; a root of Python's libraries alone, read-only
    - checker   its own pid namespace; executes the tests, without capabilities; reads the item itself
      - program   its own user, mount, ipc, uts, pid namespaces inside the checker's; an empty tmpfs; no capabilities

Both are forks of the warm helper, made before the item is read, and the helper itself reads neither items nor verdicts: no
memory of theirs has ever held anything of another item, and the program's nothing of the tests. The checker is the first
process of its pid namespace: when it is killed, everything that the program started, daemons included, is gone before
the verdict is told.
"""

from __future__ import annotations

import glob
import os
import re
import resource
import select
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from reasonloop.verify.sandbox import guest, kernel, memory, seccomp
from reasonloop.verify.sandbox.wire import WireError, receive, send

_LIBRARIES = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/etc/ld.so.cache")
_DEVICES = ("null", "zero", "random", "urandom")
_COVERED = ("/sys", "/srv", "/mnt")
"""Folders that the new root may be built over; nothing of Python's lies in the first."""
_OUTSIDE_IDS = (1_999_999_999, 65534)
"""Users that root becomes: the kernel's process limit doesn't hold for user 0."""
_INSIDE_ID = 1000
_TESTS_MEMORY = 1 << 30
_LINUX = (5, 14)
"""The first to count processes by user namespace"""
_VERDICT_LIMIT = 4096
"""Bytes of a checker's verdict, at most: what a pipe takes whole"""
_LOOK_SECONDS = 0.01
"""Between two looks at how much memory a program's processes have together"""
_START_LIMIT = 20.0
"""Seconds for a checker and a program to be made."""
_WARM = (
    "abc array bisect cmath collections collections.abc copy dataclasses datetime decimal enum fractions functools "
    "hashlib heapq itertools json math numbers operator re statistics string textwrap typing"
)


def main() -> None:
    """Serve items until the input ends.

    In: the limits, then items. Out: ["ready"], then ["verdict", ...] for each item; or ["failed", why], which is the last.
    """
    limits = receive(0)
    out = os.dup(1)
    os.dup2(2, 1)
    try:
        helper = Helper(limits)
        checker = helper.make()
        send(out, ["ready"])
        while helper.tell(*checker, out):
            checker = helper.make()
    except (OSError, EOFError, WireError) as error:
        # no going on: it isn't known whether the item that lies on the input was read
        send(out, ["failed", reason(error)])


def reason(error: BaseException) -> str:
    """With room for it in a pipe, as JSON and escaped."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__)[: guest.DETAIL_LIMIT]


@contextmanager
def _last_words(messages: int) -> Iterator[None]:
    """All that a forked process does: it ends behind the block, and sends ["failed", why] if that raises."""
    try:
        yield
    except BaseException as error:
        with suppress(OSError):
            send(messages, ["failed", reason(error)])
    finally:
        os._exit(0)


class Helper:
    """Makes a checker with its program, waits for its verdict, and leaves nothing of them.

    `packages` are folders of installed packages that the new root shows, too. Raises OSError, WireError.
    """

    def __init__(self, limits: Mapping[str, Any], packages: Sequence[str] = ()) -> None:
        self._limits = limits
        self._cpu_seconds = int(limits["timeout"]) + 1
        self._group: Sequence[int] = limits["group"]
        self._killed_before = 0
        release = tuple(int(number) for number in re.findall(r"\d+", os.uname().release)[:2])
        if release < _LINUX:
            raise WireError(f"this is Linux {os.uname().release}, which doesn't count processes by user namespace")
        if not seccomp.supported():
            raise WireError(f"the system calls of {os.uname().machine} are not known to the filter")
        self.load()
        self._proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
        with suppress(OSError):  # out of memory, the kernel should take a program and not the training run
            kernel.write(self._proc, "self/oom_score_adj", "1000")
        _enter(self._proc, packages)
        kernel.prctl("PR_SET_CHILD_SUBREAPER", 1)  # the checkers' own parents end at once
        kernel.prctl("PR_SET_PDEATHSIG", 0)  # whose thread started us may end; from here on the end of the input tells

    def load(self) -> None:
        """Whatever its forks should have in memory. Called once, when a sandbox seems possible and there is none yet."""
        for name in _WARM.split():
            __import__(name)

    def make(self) -> tuple[int, int]:
        """(process, descriptor of its messages) of a checker that is about to read an item. Raises OSError, WireError."""
        self._killed_before = self._killed()  # nothing of the last program's is there any more
        checker, messages = self._start_checker()
        poll = select.poll()
        poll.register(messages, select.POLLIN)
        in_time = poll.poll(_START_LIMIT * 1000)
        made = receive(messages) if in_time else ["failed", "a sandbox could not be made in time"]
        if made != ["made"]:
            os.close(messages)
            kill(checker)
            raise WireError(str(made[-1]))
        return checker, messages

    def tell(self, checker: int, messages: int, out: int) -> bool:
        """Send the verdict to `out` when everything that ran is gone. False if whoever sends items is gone."""
        try:
            ended = self.wait(checker, messages)
        finally:
            kill(checker)
        if ended is None:
            return False
        # Piped through, not read: it quotes the tests, and the next program is a fork of this process. The checker's
        # message is whole or not there, since a pipe takes so short a one at once.
        if ended or os.splice(messages, out, _VERDICT_LIMIT) == 0:
            verdict, detail = ended or ("crashed", "the checker was killed")
            send(out, ["verdict", {"verdict": verdict, "detail": detail}])
        os.close(messages)
        return True

    def wait(self, checker: int, messages: int) -> tuple[str, str] | tuple[()] | None:
        """What came before the checker's verdict: the deadline, or too much memory, as verdict and detail; () if nothing.

        None if whoever sends items is gone.
        """
        poll = select.poll()
        poll.register(messages, select.POLLIN)
        poll.register(0, 0)  # the end of input only: the item itself is the checker's to read
        if messages not in dict(poll.poll()) or receive(messages) != ["started"]:
            return None
        late, most = time.monotonic() + self._limits["timeout"], self._limits["memory_mib"] << 20
        while (left := late - time.monotonic()) > 0:
            ready = dict(poll.poll(min(left, _LOOK_SECONDS) * 1000))
            if self._killed() > self._killed_before or (not ready and memory.held(self._proc, checker, most) > most):
                return (
                    "crashed",
                    f"the program ran out of memory: its processes had more than {most >> 20} MiB together",
                )
            if ready:
                return () if messages in ready else None
        return "timeout", f"no verdict within {self._limits['timeout']:g} s"

    def _killed(self) -> int:
        """Processes that the kernel has killed in the control group, if there is one."""
        return memory.killed(self._group[1]) if self._group else 0

    def _start_checker(self) -> tuple[int, int]:
        """(process, pipe of its messages). Forked twice: a process moves its children into a pid namespace only once."""
        messages_read, messages = os.pipe()
        go_read, go = os.pipe()
        first = os.fork()
        if first == 0:
            with _last_words(messages):
                kernel.unshare(kernel.CLONE_NEWPID, "pid")
                child = os.fork()
                if child == 0:
                    with _last_words(messages):
                        kernel.close_all_but((0, 1, 2, messages, go_read, self._proc, *self._group))
                        if os.read(go_read, 1):  # only after this is the helper our parent
                            kernel.prctl("PR_SET_PDEATHSIG", signal.SIGKILL)
                            self.check(messages)
                send(messages, ["forked", child])
        os.close(go_read)
        os.close(messages)
        _, status = os.waitpid(first, 0)
        forked = receive(messages_read) if status == 0 else ["failed", "a process was killed while it forked a checker"]
        if forked[0] != "forked":
            raise WireError(str(forked[-1]))
        os.write(go, b".")
        os.close(go)
        return int(forked[1]), messages_read

    def check(self, messages: int) -> None:
        """The checker's life: makes the program's process, reads an item, tells its verdict."""
        requests_read, requests = os.pipe()
        replies_read, replies = os.pipe()
        kernel.unshare(kernel.CLONE_NEWPID, "pid")
        child = os.fork()
        if child == 0:
            with _last_words(replies):
                self.lock_in(requests_read, replies)
                guest.serve(requests_read, replies)
        kernel.close_all_but((0, 1, 2, messages, requests, replies_read))
        kernel.limit(AS=_TESTS_MEMORY, CORE=0, FSIZE=0, NOFILE=64)
        kernel.give_up_privileges()
        seccomp.install()
        made = receive(replies_read)
        if made != ["ready"]:
            raise WireError(str(made[-1]))
        send(messages, ["made"])
        item = receive(0, guest.ITEM_LIMIT)
        send(messages, ["started"])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # the next item is not for these tests

        def exchange(request: list[Any]) -> Any:
            try:
                send(requests, request)
                return receive(replies_read)
            except (EOFError, OSError):
                raise self._ended(child) from None

        send(messages, ["verdict", guest.check(item, exchange)])

    def _ended(self, child: int) -> guest.Unfinished:
        """How the program's process ended, or that it has only closed its pipes."""
        for _ in range(100):  # its pipes are closed a moment before it can be waited for
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                break
            time.sleep(0.002)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        if pid and os.WIFSIGNALED(status) and used.ru_utime + used.ru_stime >= self._cpu_seconds:
            return guest.Unfinished("timeout", f"more than {self._cpu_seconds} s of CPU time")
        return guest.ended(os.waitstatus_to_exitcode(status) if pid else None)

    def lock_in(self, *pipes: int) -> None:
        """Take everything from the program's process but its pipes, and the scratch folder that it gets."""
        os.setsid()
        if self._group:
            memory.enter(self._group[0])
        spaces = kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
        kernel.unshare(spaces, "user, mount, ipc, uts")
        kernel.map_ids(self._proc, "self", _INSIDE_ID, (0, 0), setgroups=False)
        size = f"size={self._limits['scratch_mib']}m,nr_inodes=1024,mode=700"
        kernel.mount("scratch", "/scratch", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC, size)
        os.chdir("/scratch")
        kernel.limit(
            AS=self._limits["memory_mib"] << 20,
            CPU=self._cpu_seconds,
            CORE=0,
            FSIZE=self._limits["scratch_mib"] << 20,
            NOFILE=32,
            NPROC=self._limits["processes"],
            MEMLOCK=0,
            MSGQUEUE=0,
            SIGPENDING=64,
        )
        kernel.close_all_but((0, 1, 2, *pipes))  # the first three lead nowhere as soon as it serves
        kernel.give_up_privileges()
        seccomp.install()


def kill(checker: int) -> None:
    """Return when it is gone, and with it its whole pid namespace."""
    with suppress(ProcessLookupError):
        os.kill(checker, signal.SIGKILL)
    os.waitpid(checker, 0)


def _enter(proc: int, packages: Sequence[str]) -> None:
    """Move this process into the helper's namespaces. Raises OSError."""
    alone = kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS | kernel.CLONE_NEWCGROUP
    if os.geteuid() == 0 and kernel.has_capability(kernel.CAP_SYS_ADMIN):
        # the root is built first: folders that only root may enter can lie on the way to Python's libraries
        kernel.unshare(kernel.CLONE_NEWNS, "mount")
        _build_root(packages)
        _become_nobody(proc)
    else:
        ids = os.geteuid(), os.getegid()
        kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS, "user")
        kernel.map_ids(proc, "self", 0, ids, setgroups=False)
        _build_root(packages)
    kernel.unshare(alone, "network, ipc, uts, cgroup")


def _become_nobody(proc: int) -> None:
    """As root: enter a user namespace whose only user is nobody outside. Who maps it has to have stayed outside."""
    process = os.readlink("self", dir_fd=proc)
    go, go_write = os.pipe()
    mapper = os.fork()
    if mapper == 0:
        os.close(go_write)
        if os.read(go, 1):
            for number in _OUTSIDE_IDS:
                with suppress(OSError):
                    kernel.map_ids(proc, process, 0, (number, number), setgroups=True)
                    os._exit(0)
        os._exit(1)
    os.close(go)
    try:
        kernel.unshare(kernel.CLONE_NEWUSER, "user")
        os.write(go_write, b".")
    finally:
        os.close(go_write)
        _, status = os.waitpid(mapper, 0)
    if status != 0:
        raise OSError(0, "no user outside of this user namespace could be mapped into a new one")
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    kernel.prctl("PR_SET_DUMPABLE", 1)  # its files in /proc stay its own


def _build_root(packages: Sequence[str]) -> None:
    """A root in place of the real one: Python's libraries, `packages`, four devices and an empty folder, read-only."""
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    root = next((folder for folder in _COVERED if os.path.isdir(folder)), None)
    if root is None:
        raise OSError(0, f"none of the folders {', '.join(_COVERED)} exists")
    kernel.mount("root", root, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,mode=755")
    for path in _shown(packages):
        if os.path.islink(path):
            os.makedirs(root + os.path.dirname(path), exist_ok=True)
            os.symlink(os.readlink(path), root + path)
        else:
            _show(path, root + path)
            # this project may be among them, with the answers to its own problems
            for hidden in sorted(set(_packages(path)).difference(packages)):
                kernel.mount("nothing", root + hidden, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=4k,mode=755")
            kernel.restrict_mount(root + path, kernel.ATTR_RDONLY | kernel.ATTR_NOSUID | kernel.ATTR_NODEV)
    for name in _DEVICES:
        _show(f"/dev/{name}", f"{root}/dev/{name}")
    os.mkdir(f"{root}/scratch")
    kernel.change_root(root)
    kernel.restrict_mount("/", kernel.ATTR_RDONLY | kernel.ATTR_NOSUID, recursive=False)


def _shown(packages: Sequence[str]) -> list[str]:
    """What the new root shows: the system's shared libraries, Python's own, and `packages`."""
    own = [f"{prefix}/{name}" for prefix in (sys.base_prefix, sys.base_exec_prefix) for name in ("lib", "lib64")]
    own += [os.path.dirname(os.__file__)]
    wanted = [path for path in dict.fromkeys((*_LIBRARIES, *own, *packages)) if os.path.exists(path)]
    # a folder that lies in another one is shown with it
    return [path for path in wanted if not any(path.startswith(f"{other}/") for other in wanted)]


def _packages(folder: str) -> list[str]:
    """Folders of installed packages, which aren't shown."""
    names = ("site-packages", "dist-packages")
    inside = [f"{where}/{name}" for where in (folder, *glob.glob(f"{glob.escape(folder)}/python3*")) for name in names]
    return [path for path in inside if os.path.isdir(path) and not os.path.islink(path)]


def _show(source: str, target: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    kernel.mount(source, target, None, kernel.MS_BIND | kernel.MS_REC)
