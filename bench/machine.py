"""What this machine can do at best: the speed of large matrix products, which no network exceeds."""

from __future__ import annotations

import platform
import time
from importlib.metadata import version
from pathlib import Path

import torch
from classifier.engine import cpu_flags

from bench.rounds import THREADS

TELLING_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")


def description() -> str:
    """Processor, threads, versions: what a table must name to mean anything."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    flags = [flag for flag in TELLING_FLAGS if flag in cpu_flags()]
    return (
        f"{name}, {THREADS} threads ({' '.join(flags)}); Python {platform.python_version()}, torch {version('torch')}"
    )


def matmul_gflops(dtype: torch.dtype, edge: int = 2048, repeats: int = 4) -> float:
    """The best of a few products of two square matrices, in 10^9 floating-point operations a second."""
    left, right = torch.rand(edge, edge).to(dtype), torch.rand(edge, edge).to(dtype)
    best = float("inf")
    with torch.inference_mode():
        for _ in range(repeats):
            started = time.perf_counter()
            torch.mm(left, right)
            best = min(best, time.perf_counter() - started)
    return 2 * edge**3 / best / 1e9
