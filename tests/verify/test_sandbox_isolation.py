"""Programs that reach out of their sandbox. What they must not do is seen from outside, or told by a verdict."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

from sandboxes import REPOSITORY, judge, needs_namespaces, told, usable

from reasonloop.records import Verdict


@needs_namespaces
def test_nothing_outside_is_seen(shared, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("marked-42")
    secret.chmod(0o666)
    paths = [
        "/etc/passwd",
        "/etc/shadow",
        str(Path(__file__)),
        str(REPOSITORY / "pyproject.toml"),
        str(secret),
        "/proc/1/environ",
    ]
    body = f"""
        import os
        seen = []
        for path in {paths}:
            for way in (path, "/proc/self/root" + path, "../../../../../.." + path):
                try: seen.append(open(way).read()[:20])
                except OSError: pass
        return seen, [name for name in ("home", "proc", "sys", "tmp", "work", "bin") if os.path.exists("/" + name)]
    """
    assert "([], [])" in told(shared, body)
    body = "import os\nreturn sorted(os.environ), os.getcwd(), os.listdir('.'), os.getpid(), sorted(os.listdir('/dev'))"
    assert "([], '/scratch', [], 1, ['null', 'random', 'urandom', 'zero'])" in told(shared, body)


@needs_namespaces
def test_installed_packages_are_not_seen(shared):
    # they may hold this project, and with it the solutions of its own problems
    body = """
        import glob, sys
        patterns = [f"{prefix}/{lib}" for prefix in ("/usr", "/usr/local", sys.base_prefix)
                    for lib in ("lib*", "lib*/python3*")]
        return [file for pattern in patterns for file in glob.glob(pattern + "/*-packages/*")]
    """
    assert "LookupError: []" in told(shared, body)


@needs_namespaces
def test_only_the_scratch_folder_is_writable(shared):
    body = """
        import os
        written = []
        for folder in ("/", "/usr/lib", "/lib", "/dev", "/etc", os.path.dirname(os.__file__), "/usr", "/scratch"):
            try:
                with open(folder + "/probe", "w") as file: file.write("x")
                written.append(folder)
            except OSError: pass
        for name, arguments in (("chmod", ("/usr/lib", 0o777)), ("mkdir", ("/new",)), ("rename", ("/scratch", "/moved"))):
            try: getattr(os, name)(*arguments); written.append(name)
            except OSError: pass
        return written
    """
    assert "['/scratch']" in told(shared, body)
    assert "LookupError: []" in told(shared, "import os\nreturn os.listdir('.')")  # and it is empty for the next one


@needs_namespaces
def test_links_lead_nowhere(shared, tmp_path):
    (tmp_path / "target").write_text("untouched")
    (tmp_path / "target").chmod(0o666)
    body = f"""
        import os
        os.symlink({str(tmp_path / "target")!r}, "link")
        os.symlink("/", "root")
        reached = []
        for path in ("link", "root/etc/passwd", "root/../../etc/passwd", "link/../../../etc/passwd"):
            for mode in ("r", "w"):
                try: open(path, mode).close(); reached.append((path, mode))
                except OSError: pass
        for source in ("/usr/lib/os-release", "/etc/ld.so.cache", os.__file__):
            try: os.link(source, "hard"); reached.append(source)
            except OSError: pass
        return reached
    """
    assert "LookupError: []" in told(shared, body)
    assert (tmp_path / "target").read_text() == "untouched"


@needs_namespaces
def test_there_is_no_network(shared, tmp_path):
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as abstract, socket.socket(socket.AF_UNIX) as named:
        tcp.bind(("127.0.0.1", 0))
        abstract.bind(f"\0reasonloop-{os.getpid()}")
        named.bind(str(tmp_path / "s"))
        (tmp_path / "s").chmod(0o777)
        for server in (tcp, abstract, named):
            server.listen()
        body = f"""
            import socket
            reached = []
            for family, address in ((socket.AF_INET, {tcp.getsockname()!r}), (socket.AF_INET, ("1.1.1.1", 53)),
                                    (socket.AF_INET6, ("::1", 80)), (40, (2, 1)),
                                    (socket.AF_UNIX, {f"{chr(0)}reasonloop-{os.getpid()}"!r}),
                                    (socket.AF_UNIX, {str(tmp_path / "s")!r})):
                try:
                    with socket.socket(family) as client: client.settimeout(1); client.connect(address)
                    reached.append(address)
                except (OSError, ValueError): pass
            a, b = socket.socketpair()
            a.send(b"x")
            return reached, b.recv(1)
        """
        assert "([], b'x')" in told(shared, body)


@needs_namespaces
def test_privileges_do_not_come_back(shared):
    body = """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        done = []
        for flag in (0x10000000, 0x00020000, 0x20000000, 0x40000000):
            if libc.unshare(flag) == 0: done.append("unshare")
        if libc.mount(b"x", b"/scratch", b"tmpfs", 0, None) == 0: done.append("mount")
        if libc.chroot(b"/scratch") == 0: done.append("chroot")
        if libc.ptrace(16, 1, 0, 0) == 0: done.append("ptrace")
        if libc.syscall(319, b"x", 0) >= 0: done.append("memfd")
        if libc.shmget(1, 4096, 0o1600) >= 0: done.append("shm")
        for action in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([0]), lambda: os.nice(-5)):
            try: action(); done.append("privilege")
            except OSError: pass
        return done
    """
    assert "LookupError: []" in told(shared, body)


@needs_namespaces
def test_only_its_own_descriptors_are_open(shared):
    body = """
        import os, stat
        kinds = []
        for descriptor in range(256):
            try: kinds.append((descriptor, stat.S_IFMT(os.fstat(descriptor).st_mode)))
            except OSError: pass
        return [kind for _, kind in kinds]
    """
    assert f"[{stat.S_IFCHR}, {stat.S_IFCHR}, {stat.S_IFCHR}, {stat.S_IFIFO}, {stat.S_IFIFO}]" in told(shared, body)


@needs_namespaces
def test_signals_reach_nobody_outside(shared):
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    received = []
    previous = signal.signal(signal.SIGUSR1, lambda *_: received.append(1))
    try:
        program = f"""
            import os, signal
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            def f():
                for process in ({bystander.pid}, {os.getpid()}, os.getppid(), -1, 2, 3):
                    try: os.kill(process, signal.SIGUSR1)
                    except OSError: pass
                return os.getppid()
        """
        # the parent's number is 0 inside: it can't be named, and to send to 0 is to send to the own group
        assert judge(shared, program, "assert f() == 0").verdict is Verdict.RIGHT
        judge(shared, "import os, signal\ndef f(): os.kill(-1, signal.SIGKILL)", "f()")
        judge(shared, "import os, signal\ndef f(): os.killpg(0, signal.SIGKILL)", "f()")
        assert bystander.poll() is None
        assert not received
        assert usable(shared)
    finally:
        signal.signal(signal.SIGUSR1, previous)
        bystander.kill()
        bystander.communicate()
