"""The Linux calls that make a sandbox, which Python 3.11's standard library doesn't have. Standard library only."""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from collections.abc import Iterable
from contextlib import suppress

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x8, 0x1000, 0x4000, 0x40000
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV = 0x1, 0x2, 0x4
CAP_SYS_ADMIN = 21
_MNT_DETACH = 2
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_SYS_MOUNT_SETATTR = 442
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_PRCTL = {
    "PR_SET_PDEATHSIG": 1, "PR_SET_DUMPABLE": 4, "PR_SET_SECCOMP": 22, "PR_CAPBSET_DROP": 24, "PR_SET_SECUREBITS": 28,
    "PR_SET_CHILD_SUBREAPER": 36, "PR_SET_NO_NEW_PRIVS": 38, "PR_CAP_AMBIENT": 47,
}  # fmt: skip
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522
_NO_ROOT_PRIVILEGES = 0b101111  # noroot, no-setuid-fixup, keep-caps off: all but keep-caps itself, locked

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int, what: str) -> None:
    """Move this process (CLONE_NEWPID: its next children) into new namespaces. Raises OSError that names `what`."""
    _checked(_libc.unshare(flags), f"new {what} namespace")


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """mount(2). Raises OSError."""
    encoded = [None if text is None else text.encode() for text in (source, target, kind, data)]
    _checked(_libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]), f"mount {target}")


def restrict_mount(target: str, attributes: int, recursive: bool = True) -> None:
    """Add ATTR_* to a mount and (`recursive`) those below it: mount_setattr(2), Linux 5.12. Raises OSError."""
    attr = struct.pack("=QQQQ", attributes, 0, 0, 0)
    flags = _AT_RECURSIVE if recursive else 0
    arguments = (ctypes.c_long(_AT_FDCWD), target.encode(), ctypes.c_long(flags), attr, ctypes.c_long(len(attr)))
    _checked(_libc.syscall(ctypes.c_long(_SYS_MOUNT_SETATTR), *arguments), f"mount_setattr {target}")


def change_root(new_root: str) -> None:
    """Make the mount `new_root` the root of this mount namespace, and let go of the old one. Raises OSError."""
    os.chdir(new_root)
    call = ctypes.c_long(_SYS_PIVOT_ROOT[os.uname().machine])
    # stacks the new root on the old one, so that no folder is needed
    _checked(_libc.syscall(call, b".", b"."), "pivot_root")
    _checked(_libc.umount2(b".", _MNT_DETACH), "umount of the old root")
    os.chdir("/")


def has_capability(number: int) -> bool:
    """Whether this process has a capability in its user namespace."""
    with open("/proc/self/status") as file:
        held = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))
    return bool(held >> number & 1)


def map_ids(proc: int, process: str, inside: int, outside: tuple[int, int], setgroups: bool) -> None:
    """Map user and group `inside` of a process's new user namespace to (user, group) `outside`. Raises OSError.

    `proc` is a descriptor of /proc; an ordinary user has to give up setgroups.
    """
    user, group = outside
    if not setgroups:
        write(proc, f"{process}/setgroups", "deny")
    write(proc, f"{process}/uid_map", f"{inside} {user} 1")
    write(proc, f"{process}/gid_map", f"{inside} {group} 1")


def write(proc: int, path: str, text: str) -> None:
    """Write to a file of /proc, whose descriptor `proc` is. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY, dir_fd=proc)
    try:
        os.write(descriptor, text.encode())
    except OSError as error:
        raise OSError(error.errno, f"write {text!r} to /proc/{path}: {error.strerror}") from None
    finally:
        os.close(descriptor)


def prctl(option: str, value: int, pointer: bytes | int = 0) -> None:
    """prctl(2). Raises OSError."""
    _checked(_libc.prctl(_PRCTL[option], value, pointer, 0, 0), f"prctl({option})")


def give_up_privileges() -> None:
    """No capability from now on, in no set, and none through an exec either. Raises OSError."""
    with suppress(OSError):  # up to the kernel's last capability
        for number in range(64):
            prctl("PR_CAPBSET_DROP", number)
    with suppress(OSError):
        prctl("PR_CAP_AMBIENT", _PR_CAP_AMBIENT_CLEAR_ALL)
    prctl("PR_SET_SECUREBITS", _NO_ROOT_PRIVILEGES)
    prctl("PR_SET_NO_NEW_PRIVS", 1)
    header, nothing = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), bytes(24)
    _checked(_libc.capset(header, nothing), "capset")


def limit(**limits: int) -> None:
    """Set soft and hard limits RLIMIT_(name), never above a hard limit that is there already."""
    for name, value in limits.items():
        which = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(which)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (value, value))


def close_all_but(keep: Iterable[int]) -> None:
    """Close every descriptor that isn't in `keep`."""
    last = 0
    for descriptor in sorted(set(keep)):
        if last < descriptor:  # Python 3.11 takes the empty range (0, 0) for all of them
            os.closerange(last, descriptor)
        last = descriptor + 1
    os.closerange(last, 1 << 20)
