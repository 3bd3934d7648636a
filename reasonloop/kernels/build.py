"""Builds kernels.c with the machine's C compiler, keeps what it has built, and loads it.

What is in the user's cache is loaded only if it is the user's own and whole: a file's name tells what it was made of
(source, compiler, flags and processor, since machines may share a home folder) and the digest of its content. It is
loaded from a copy in memory, so that neither the cache's file system nor whoever empties the cache can touch a process
that has it.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import stat
import subprocess
import tempfile
from contextlib import suppress
from ctypes import c_int64, c_uint64
from functools import cache
from pathlib import Path
from typing import Any

from reasonloop.errors import InputError
from reasonloop.files import own_alone, user_cache, write_atomically
from reasonloop.machine import compiler, processor

SOURCE = Path(__file__).with_name("kernels.c")
FLAGS = (
    *("-O3", "-march=native", "-fopenmp", "-fPIC", "-shared", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math"),
    *(("-mprefer-vector-width=512",) if platform.machine() == "x86_64" else ()),
)
"""No fast-math: infinities and NaN stay what they are, since a diverged policy has to show."""
SWITCH = "REASONLOOP_KERNELS"
"""Environment variable: "off", or the library to load in place of one that is built here."""
SLOWER = "sampling takes 1.3 to 4.9 times as long"
"""With many responses at once, and with one (benchmarks/results/ideas.json)"""
_FAILURES = (OSError, RuntimeError, subprocess.SubprocessError, AttributeError)


def library() -> Any:
    """kernels.c, built for this processor; None where that can't be done (`lack` says why).

    Raises InputError if SWITCH names what is no library of this source.
    """
    return _attempt()[0]


def lack() -> str:
    """Why there is no library, in a few words; empty where there is one."""
    return _attempt()[1]


def unkept() -> str:
    """Why the library, which is there, was built for this process alone, in a few words; empty where it is kept."""
    return _attempt()[2]


def advice() -> str:
    """What a run on this CPU should say of the kernels as it begins; empty where all is well, or they aren't wanted."""
    if lack():
        return "" if os.environ.get(SWITCH) == "off" else f"without our CPU kernels ({lack()}): {SLOWER}"
    if unkept():
        return f"our CPU kernels can't be kept ({unkept()}), and are built anew by every command: XDG_CACHE_HOME says where"
    return ""


@cache
def _attempt() -> tuple[Any, str, str]:
    try:
        return _loaded()
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines() or ["?"]
        told = next((line for line in lines if "error" in line), lines[-1])
        return None, f"the C compiler fails: {told[:200]}", ""
    except _FAILURES as error:
        return None, str(error)[:200], ""


def described() -> str:
    """In a few words for a result's machine, since rounding depends on it."""
    return "none" if library() is None else f"{library().panel_width() // 2} floats a vector, {_source_id() >> 32:08x}"


def _source_id() -> int:
    return int(hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16], 16)


def _loaded() -> tuple[Any, str, str]:
    told = os.environ.get(SWITCH, "")
    if told == "off":
        raise RuntimeError(f"switched off ({SWITCH}=off)")
    if told:
        try:
            return _opened(Path(told).absolute()), "", ""
        except (OSError, AttributeError, RuntimeError) as error:
            raise InputError(f"{SWITCH}={told}: expected 'off' or a library of our kernels ({error})") from None
    if platform.system() != "Linux":
        raise RuntimeError(f"they are for Linux, and this is {platform.system()}")
    program = compiler.path()
    if program is None:
        raise RuntimeError("no C compiler; install gcc (Debian and Ubuntu: apt install gcc libc6-dev)")
    made_of = "|".join((f"{_source_id():016x}", compiler.version(), *FLAGS, *_processor()))
    begin = f"kernels-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}-"
    content = _kept(begin)
    if content is not None:
        with suppress(*_FAILURES):  # made for another C library, say
            return _copied(content), "", ""
    content = _built(program)
    return _copied(content), "", _keep(begin, content)


def _copied(content: bytes) -> Any:
    """The library, loaded from a copy in memory; where the system executes none, from a file that is gone at once."""
    if hasattr(os, "memfd_create"):
        with suppress(OSError):
            descriptor = os.memfd_create("reasonloop-kernels")  # stays open: the library is mapped from it
            with open(descriptor, "wb", closefd=False) as file:
                file.write(content)
            return _opened(Path(f"/proc/self/fd/{descriptor}"))
    with tempfile.NamedTemporaryFile(prefix="reasonloop-", suffix=".so") as copy:
        copy.write(content)
        copy.flush()
        return _opened(Path(copy.name))


def _opened(file: Path) -> Any:
    opened = ctypes.CDLL(str(file))
    opened.source_id.restype = c_uint64
    if opened.source_id() != _source_id():
        raise RuntimeError("it was made from another source")
    for function in ("panel_width", "own_floats", "attention_floats"):
        getattr(opened, function).restype = c_int64
    return opened


def _kept(begin: str) -> bytes | None:
    """What the cache has, if it is whole, and nobody else can have written it."""
    with suppress(OSError, RuntimeError):
        for file in sorted(user_cache().glob(f"{begin}*.so")):
            if own_alone(file, stat.S_ISREG):
                content = file.read_bytes()
                if file.name == _name(begin, content):
                    return content
    return None


def _keep(begin: str, content: bytes) -> str:
    """Puts it in the cache, or says in a few words why that can't be; several processes may do so at once."""
    try:
        write_atomically(user_cache() / _name(begin, content), content, several=True, mode=0o600)
    except (OSError, RuntimeError) as error:
        return str(error)[:200]
    return ""


def _name(begin: str, content: bytes) -> str:
    return f"{begin}{hashlib.sha256(content).hexdigest()[:16]}.so"


def _built(program: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="reasonloop-") as folder:
        made = Path(folder) / "kernels.so"
        own = f"-DSOURCE_ID=0x{_source_id():016x}ull"
        subprocess.run(
            [program, *FLAGS, own, str(SOURCE), "-o", str(made), "-lm"],
            capture_output=True,
            check=True,
            timeout=120,
            env=os.environ | {"LC_ALL": "C"},
        )
        return made.read_bytes()


def _processor() -> list[str]:
    """What -march=native depends on. Raises RuntimeError where that can't be told: machines may share a home folder."""
    found = processor.fields()
    if not found:
        raise RuntimeError("the processor can't be told")
    told = ("vendor_id", "cpu family", "model", "flags", "Features", "CPU implementer", "CPU part")
    return [platform.machine(), *(value for key in told for value in found.get(key, ()))]
