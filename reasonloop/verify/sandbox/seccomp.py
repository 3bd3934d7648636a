"""The system calls that a program doesn't get: a seccomp filter, written as classic BPF. Standard library only.

Namespaces and missing capabilities already keep a program in; the filter takes away what they don't cover: a new user
namespace would bring capabilities back, AF_VSOCK ignores network namespaces, memfd and System V memory aren't counted in
the address space, and ptrace, keys, bpf, io_uring and the new mount calls are where kernels have been broken before.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

from reasonloop.verify.sandbox import kernel

# number by call: x86_64, aarch64 (None: doesn't exist there)
_DENIED: dict[str, tuple[int | None, int | None]] = {
    # other processes: their memory, their descriptors
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "process_madvise": (440, 440),
    "kcmp": (312, 272), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    # namespaces, roots and mounts
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442), "quotactl": (179, 60),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    # where kernels have been broken before
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "modify_ldt": (154, None),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    # memory that isn't counted
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186),
    "mq_open": (240, 180),
    # what others do with files, and the kernel's own affairs
    "fanotify_init": (300, 262), "inotify_init": (253, None), "inotify_init1": (294, 26), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104), "kexec_file_load": (320, 294),
    "syslog": (103, 116),
}  # fmt: skip
_CALLS = {"clone": (56, 220), "clone3": (435, 435), "socket": (41, 198)}
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_NEW_NAMESPACES = 0x7E020000
_AF_UNIX = 1
_X32 = 0x40000000

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _ARCHITECTURE, _ARGUMENT_0 = 0, 4, 16
_MODE_FILTER = 2


def supported() -> bool:
    """Whether the calls' numbers are known for this machine's architecture."""
    return platform.machine() in _ARCHITECTURES


def filter_program(machine: str) -> bytes:
    """The filter for an architecture: struct sock_filter[], 8 bytes each."""
    column, architecture = _ARCHITECTURES[machine]
    refuse = (_RETURN, 0, 0, _REFUSE | errno.EPERM)
    steps = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER)]
    if machine == "x86_64":  # the same calls once more, under other numbers
        steps += [(_AT_LEAST, 0, 1, _X32), refuse]
    for numbers in _DENIED.values():
        if (number := numbers[column]) is not None:
            steps += [(_EQUAL, 0, 1, number), refuse]
    # clone3's flags lie in memory, where a filter can't look: the C library falls back to clone
    steps += [(_EQUAL, 0, 1, _CALLS["clone3"][column]), (_RETURN, 0, 0, _REFUSE | errno.ENOSYS)]
    steps += [(_EQUAL, 0, 4, _CALLS["clone"][column]), (_LOAD, 0, 0, _ARGUMENT_0), (_ANY_BIT, 0, 1, _NEW_NAMESPACES)]
    steps += [refuse, (_RETURN, 0, 0, _ALLOW)]
    steps += [(_EQUAL, 0, 3, _CALLS["socket"][column]), (_LOAD, 0, 0, _ARGUMENT_0), (_EQUAL, 1, 0, _AF_UNIX), refuse]
    steps += [(_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def install() -> None:
    """Filter this process's calls from now on, and its children's. Needs no_new_privs. Raises OSError."""
    code = filter_program(platform.machine())
    steps = ctypes.create_string_buffer(code)
    program = struct.pack("@HP", len(code) // 8, ctypes.addressof(steps))  # struct sock_fprog
    kernel.prctl("PR_SET_SECCOMP", _MODE_FILTER, program)
