"""What this machine can do at best: the speed of large matrix products, which no network exceeds."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
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
    with torch.inference_mode():
        return _best_rate(lambda: torch.mm(left, right), edge, repeats)


def matmul_int8_gops(edge: int = 2048, repeats: int = 4) -> float:
    """The best of a few products of two square matrices, unsigned by signed bytes, in 10^9 operations a second."""
    # Only here: the bench of training needs neither.
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    right = rng.integers(-63, 64, (edge, edge), dtype=np.int8)
    product = helper.make_node("MatMulInteger", ["left", "right"], ["product"])
    graph = helper.make_graph(
        [product],
        "product",
        [helper.make_tensor_value_info("left", TensorProto.UINT8, (edge, edge))],
        [helper.make_tensor_value_info("product", TensorProto.INT32, (edge, edge))],
        [numpy_helper.from_array(right, "right")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    left = rng.integers(0, 256, (edge, edge), dtype=np.uint8)
    return _best_rate(lambda: session.run(None, {"left": left}), edge, repeats)


def _best_rate(multiply: Callable[[], object], edge: int, repeats: int) -> float:
    """10^9 operations a second in the fastest of `repeats` products of two square matrices."""
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        multiply()
        best = min(best, time.perf_counter() - started)
    return 2 * edge**3 / best / 1e9
