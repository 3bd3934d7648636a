"""Our own kernels for float32 on CPUs (kernels.c), built with the machine's C compiler where there is one.

Sampling decodes with them (`rollout.kernel_forward`), and the learner multiplies with them where they are ahead of torch's
library (`policy.products`).
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from ctypes import POINTER, Structure, byref, c_float, c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reasonloop import compiler
from reasonloop.cache import user_cache
from reasonloop.errors import InputError

SOURCE = Path(__file__).with_name("kernels.c")
FLAGS = (
    *("-O3", "-march=native", "-fopenmp", "-fPIC", "-shared", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math"),
    *(("-mprefer-vector-width=512",) if platform.machine() == "x86_64" else ()),
)
"""No fast-math: infinities and NaN stay what they are, since a diverged policy has to show."""
SWITCH = "REASONLOOP_KERNELS"
"""Environment variable: "off", or the library to load in place of one that is built here."""
_FAILURES = (OSError, RuntimeError, subprocess.SubprocessError, AttributeError)


@cache
def library() -> Any:
    """kernels.c, built for this processor and kept in the user's cache; None where that can't be done (`lack` says why)."""
    try:
        return _loaded()
    except _FAILURES:
        return None


def lack() -> str:
    """Why there is no library, in a few words; empty where there is one."""
    if library() is not None:
        return ""
    try:
        _loaded()
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines() or ["?"]
        told = next((line for line in lines if "error" in line), lines[-1])
        return f"the C compiler fails: {told[:200]}"
    except _FAILURES as error:
        return str(error)[:200]
    return ""


def choice() -> str:
    """What SWITCH must be in another process for it to compute as this one does."""
    return "off" if library() is None else str(library()._name)


def described() -> str:
    """In a word for a result's machine, since rounding depends on it."""
    return "none" if library() is None else f"{library().panel_width() // 2} floats a vector"


def _loaded() -> Any:
    told = os.environ.get(SWITCH, "")
    if told == "off":
        raise RuntimeError(f"switched off ({SWITCH}=off)")
    if told:
        try:
            return _opened(Path(told))
        except (OSError, AttributeError) as error:
            raise InputError(f"{SWITCH}={told}: expected 'off' or a library of our kernels ({error})") from None
    program = compiler.path()
    if program is None or platform.system() != "Linux":
        raise RuntimeError("no C compiler (gcc)" if program is None else f"not for {platform.system()}")
    made_of = [SOURCE.read_bytes(), compiler.version().encode(), " ".join(FLAGS).encode(), _processor().encode()]
    # machines of different kinds may share a home folder
    name = f"kernels-{hashlib.sha256(b'|'.join(made_of)).hexdigest()[:16]}.so"
    try:
        folder = user_cache()
        if (folder / name).is_file():
            with suppress(OSError, AttributeError):  # cut short by a crash, or made for another C library: once more
                return _opened(folder / name)
            (folder / name).unlink()
        _build(program, folder / name)
    except (OSError, RuntimeError):  # no home, no room, read-only, or not ours: for this process alone
        folder = Path(tempfile.mkdtemp(prefix="reasonloop-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        _build(program, folder / name)
    return _opened(folder / name)


def _opened(file: Path) -> Any:
    opened = ctypes.CDLL(str(file))
    for function in ("panel_width", "own_floats", "attention_floats"):
        getattr(opened, function).restype = c_int64
    return opened


def _build(program: str, target: Path) -> None:
    descriptor, partial = tempfile.mkstemp(".so", "kernels-", target.parent)
    os.close(descriptor)
    try:
        subprocess.run(
            [program, *FLAGS, str(SOURCE), "-o", partial, "-lm"], capture_output=True, check=True, timeout=120
        )
        os.chmod(partial, 0o755)
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        try:  # several processes may build it at once, and they are alike; the first one stays, others may have it mapped
            os.link(partial, target)
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            os.replace(partial, target)
    finally:
        Path(partial).unlink(missing_ok=True)


def _processor() -> str:
    """What -march=native depends on."""
    lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    told = ("vendor_id", "cpu family", "model", "flags", "Features", "CPU implementer", "CPU part")
    return platform.machine() + "|".join(dict.fromkeys(line for line in lines if line.partition("\t")[0] in told))


def empty(*shape: int) -> Tensor:
    """Float32 on the CPU, whatever torch's defaults are."""
    return torch.empty(shape, dtype=torch.float32, device="cpu")


def floats(tensor: Tensor) -> bool:
    """Whether it is what the kernels compute with: float32 on a CPU."""
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu"


def usable(*tensors: Tensor) -> bool:
    """Whether the kernels are there, and can take these tensors."""
    return all(map(floats, tensors)) and library() is not None


def laid_out(weight: Tensor, up: Tensor | None = None) -> Tensor:
    """Panels of a weight [out, in], with `up` of two of them side by side."""
    kernels, (out, size) = library(), weight.shape
    width = kernels.panel_width()
    weight, up = weight.detach().contiguous(), up.detach().contiguous() if up is not None else None
    panels = empty(-(-out // (width // 2 if up is not None else width)), size, width)
    kernels.lay_out(at(weight), at(up), c_int64(out), c_int64(size), at(panels), c_int64(torch.get_num_threads()))
    return panels


class Panels:
    """Weights [out, in], float32, laid out as kernels.c multiplies them: x [N, in] -> [N, out].

    With `up`, a second matrix of the same shape, x -> silu(x @ weight.T) * (x @ up.T). Biases likewise.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None = None, up: Tensor | None = None, up_bias: Tensor | None = None
    ) -> None:
        self.out, self.size = weight.shape
        self.gated = up is not None
        self.weight = laid_out(weight, up)
        self.bias: Tensor | None = None
        if bias is not None:
            self.bias = laid_out(bias[:, None], up_bias[:, None] if up_bias is not None else None)

    def __call__(self, x: Tensor, *_: Any) -> Tensor:
        x = x.contiguous()
        out = empty(len(x), self.out)
        library().multiply(
            *(at(x), c_int64(len(x)), c_int64(self.size), at(self.weight), at(self.bias), at(out)),
            *(c_int64(self.out), c_int64(self.gated), c_int64(torch.get_num_threads())),
        )
        return out


def at(tensor: Tensor | None) -> c_void_p:
    """A tensor's address. Whoever passes it on keeps the tensor."""
    return c_void_p(tensor.data_ptr() if tensor is not None else None)


class Right:
    """b [K, N], float32, or with `turned` its transpose [N, K], laid out to be the right factor of products."""

    def __init__(self, b: Tensor, turned: bool = False) -> None:
        self.size, self.out = b.shape[::-1] if turned else b.shape
        self.panels = laid_out(b) if turned else self._rows(b.detach().contiguous())

    def _rows(self, b: Tensor) -> Tensor:
        kernels, width = library(), library().panel_width()
        panels = empty(-(-self.out // width), self.size, width)
        kernels.lay_rows(at(b), *map(c_int64, (self.size, self.out)), at(panels), c_int64(torch.get_num_threads()))
        return panels

    def times(self, a: Tensor, turned: bool = False, onto: Tensor | None = None) -> Tensor:
        """a [M, K] @ b, added `onto` what is in a contiguous tensor [M, N], if one is given. With `turned` a is [K, M]."""
        kernels, a, threads = library(), a.detach().contiguous(), torch.get_num_threads()
        rows = a.shape[1] if turned else a.shape[0]
        own = empty(threads * kernels.own_floats())
        c = empty(rows, self.out) if onto is None else onto
        assert c.is_contiguous()
        kernels.matmul(
            *(at(a), *map(c_int64, (turned, rows, self.size)), at(self.panels), at(c)),
            *(c_int64(self.out), c_int64(onto is not None), at(own), c_int64(threads)),
        )
        return c


def token_logprobs(
    logits: Tensor, targets: Tensor, by: float, sums: Tensor, logprobs: Tensor, entropies: Tensor
) -> None:
    """Of the rows of logits [M, V] times `by`, float32: what `token_gradients` needs of them, float32 [M, 2], log-probs of
    the targets, int64 [M] below V, and entropies, float32 [M], each into a contiguous tensor, in two passes over a row,
    the second of which finds it in the cache."""
    library().token_logprobs(
        *(at(logits), *map(c_int64, logits.shape), at(targets), c_float(by), at(sums), at(logprobs), at(entropies)),
        c_int64(torch.get_num_threads()),
    )


def token_gradients(logits: Tensor, targets: Tensor, by: float, sums: Tensor, pulls: Tensor) -> None:
    """Logits [M, V], in place, to pulls [M] times the gradient of the target's log-prob by `by` times the logits."""
    pulls = pulls.contiguous()
    library().token_gradients(
        *(at(logits), *map(c_int64, logits.shape), at(targets), c_float(by), at(sums), at(pulls)),
        c_int64(torch.get_num_threads()),
    )


class _Packed(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("segments", "heads", "kv_heads", "dim", "threads")),
        ("scale", c_float),
        *((name, POINTER(c_int64)) for name in ("segment", "context")),
        ("longest", c_int64),
        ("own", c_void_p),
        ("own_size", c_int64),
    )


class Segments:
    """Which tokens of a packed stream look at which: each segment (start, length, contexts), a context (start, length)."""

    def __init__(self, segments: Sequence[tuple[int, int, Sequence[tuple[int, int]]]]) -> None:
        first, rows = 0, []
        for start, length, contexts in segments:
            rows.append((start, length, first, len(contexts)))
            first += len(contexts)
        self.segment = np.array(rows, dtype=np.int64).reshape(-1, 4)
        pairs = [pair for _, _, contexts in segments for pair in contexts]
        self.context = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        self.longest = max((length + sum(n for _, n in contexts) for _, length, contexts in segments), default=0)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Attention, query [N, H, D], key and value [N, Hkv, D], float32 -> [N, H, D]. With gradients."""
        found: Tensor = _Attention.apply(query, key, value, self, scale)
        return found

    def described(self, query: Tensor, key: Tensor, scale: float, kept: list[Tensor], backward: bool) -> _Packed:
        (_, heads, dim), kv_heads = query.shape, key.shape[1]
        threads = max(1, min(torch.get_num_threads(), kv_heads * (1 if backward else len(self.segment))))
        size = library().attention_floats(c_int64(self.longest), c_int64(dim), c_int64(backward))
        kept.append(empty(threads * size))
        tables = [table.ctypes.data_as(POINTER(c_int64)) for table in (self.segment, self.context)]
        counts = (len(self.segment), heads, kv_heads, dim, threads)
        return _Packed(*counts, scale, *tables, self.longest, kept[0].data_ptr(), size)


class _Attention(torch.autograd.Function):
    """The weights are made again in the backward pass from each query's log sum of exponentials (FlashAttention 2,
    arXiv 2307.08691, section 3.1)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, segments: Segments, scale: float) -> Tensor:
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        out, sums, kept = torch.empty_like(query), query.new_empty(query.shape[:2]), list[Tensor]()
        described = segments.described(query, key, scale, kept, backward=False)
        library().attention(byref(described), *map(at, (query, key, value, out, sums)))
        ctx.save_for_backward(query, key, value, out, sums)
        ctx.segments, ctx.scale = segments, scale
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        query, key, value, out, sums = ctx.saved_tensors
        pull, kept = grads[0].contiguous(), list[Tensor]()
        found = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        described = ctx.segments.described(query, key, ctx.scale, kept, backward=True)
        library().attention_backward(byref(described), *map(at, (query, key, value, out, sums, pull, *found)))
        return *found, None, None
