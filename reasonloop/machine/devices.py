"""Devices by name, as their vendors' data sheets have them. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    name: str
    flops: float
    """FLOP/s in bfloat16, dense, sums in float32"""
    bandwidth: float
    """Bytes/s of its memory"""
    memory: int
    """Bytes; 0 where it is the machine's"""
    link: float = 0.0
    """Bytes/s to another one in the machine, one way: NVLink, or PCIe; 0 where there is none"""


GPUS = (
    # NVIDIA's data sheets of each product, SXM where there are several; "with sparsity" halved. RTX: the architecture's
    # whitepapers, FP16/BF16 tensor with FP32 accumulate.
    Device("B200", 2250e12, 8.0e12, 180 * 10**9, 900e9),
    Device("H200", 989e12, 4.8e12, 141 * 10**9, 450e9),
    Device("H100 PCIe", 756e12, 2.0e12, 80 * 10**9, 64e9),
    Device("H100", 989e12, 3.35e12, 80 * 10**9, 450e9),
    Device("A100-SXM4-40GB", 312e12, 1.555e12, 40 * 10**9, 300e9),
    Device("A100", 312e12, 2.039e12, 80 * 10**9, 300e9),
    Device("L40S", 362e12, 0.864e12, 48 * 10**9, 32e9),
    Device("L4", 121e12, 0.3e12, 24 * 10**9, 32e9),
    Device("A10", 125e12, 0.6e12, 24 * 10**9, 32e9),
    Device("RTX 5090", 209.5e12, 1.792e12, 32 * 10**9, 64e9),
    Device("RTX 4090", 165.2e12, 1.008e12, 24 * 10**9, 32e9),
    Device("RTX 3090", 71e12, 0.936e12, 24 * 10**9, 32e9),
)
"""The more special name before the one that it begins with"""
REFERENCE = next(gpu for gpu in GPUS if gpu.name == "H100")
"""What is reckoned with where there is no GPU"""
CORE = Device("CPU core", 80e9, 12e9, 0)
"""A core as runs reach it, in float32: half of what a core with AVX-512 does (benchmarks/results/bench-smollm2.json)"""


def device_named(name: str) -> Device | None:
    """The GPU that a driver's name ("NVIDIA H100 80GB HBM3") means; None where it isn't in the table."""
    words = name.replace("-", " ").lower().split()
    for gpu in GPUS:
        wanted = gpu.name.replace("-", " ").lower().split()
        if any(words[i : i + len(wanted)] == wanted for i in range(len(words))):
            return gpu
        if set(wanted) <= set(words):
            return gpu
    return None
