"""A frozen backbone as fast as this CPU runs it."""

import copy
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn

from classifier.fusion import folded, fused

# Large enough for the kernels, and small enough for every core to hold one in memory at once.
BATCH_SIZE = 8
CPU = Path("/proc/cpuinfo")
# Without one of these bfloat16 is emulated, and slower than float32: AVX512_VNNI alone is for integers.
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16", "svebf16"}
# How far features may be from the plain network's, as a share of their length. Rounding stays well below; what exceeds
# it is another network.
TOLERANCE = {"fp32": 1e-4, "bf16": 0.05}
# Compiling takes a minute or more and gains what fusing gains: it is for many pictures, where nothing could be fused.
VIEWS_WORTH_COMPILING = 50_000


def chosen_precision(asked: str) -> str:
    """fp32 or bf16; for "auto" the one that this CPU multiplies faster."""
    return asked if asked != "auto" else "bf16" if BF16_FLAGS & cpu_flags() else "fp32"


def cpu_flags() -> set[str]:
    """What the first core can do, as Linux names it; nothing on other systems."""
    with suppress(OSError):
        for line in CPU.read_text().splitlines():
            name, _, flags = line.partition(":")
            if name.strip().lower() in ("flags", "features"):
                return set(flags.split())
    return set()


class Engine:
    """A copy of a network in eval mode: float32 [n, 3, S, S] to float32 [n, features], on the caller's thread.

    precision: fp32 or bf16. compiled: None decides by the number of views that are to come. image_size: S, in pixels.
    description: what was done to the network, in words. Each thing that was done is tried on an example, and what
    fails or gives other features is not done, and said.
    """

    def __init__(self, network: nn.Module, precision: str, compiled: bool | None, image_size: int, views: int = 0):
        self._in_bf16, self._tolerance = precision == "bf16", TOLERANCE[precision]
        network = copy.deepcopy(network).eval()
        self._example = torch.randn(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            self._expected = network(self._example)
        words = [precision, "channels_last"]
        try:
            # Before weights are lowered, so that they are rounded once.
            graph = folded(network)
        except Exception:  # Tracing Python can fail in any way.
            graph = None
        self._network = best = self._lowered(network)
        if graph:
            best = self._lowered(graph)
            words.append(self._trying("BatchNorm folded", lambda: best))
            words.append(self._trying("fused", lambda: fused(best, self._example, BATCH_SIZE)))
        else:
            words.append("not traceable")
        is_fused = words[-1] == "fused"
        if compiled is None:
            compiled = not is_fused and views >= VIEWS_WORTH_COMPILING and has_compiler()
        if compiled:
            options = {"freezing": True, "cpp.threads": 1}
            words.append(self._trying("compiled", lambda: torch.compile(best, options=options)))
        self.description = ", ".join(words)

    @torch.inference_mode()
    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """The features of a batch."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self._in_bf16):
            return self._network(pixels.contiguous(memory_format=torch.channels_last)).float()

    def _lowered(self, network: nn.Module) -> nn.Module:
        """In the layout and type its kernels are fastest with; what is sensitive to rounding stays in float32."""
        for module in network.modules() if self._in_bf16 else ():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.to(torch.bfloat16)
            elif isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
                module.in_proj_weight.data = module.in_proj_weight.data.to(torch.bfloat16)
        return network.to(memory_format=torch.channels_last)

    def _trying(self, word: str, make: Callable[[], nn.Module]) -> str:
        """Take the network that `make` gives where its features are right: the word, with "not" in front otherwise."""
        before = self._network
        try:
            # Not in inference mode: torch's matmul takes a slow path for weights that were made in it.
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=self._in_bf16):
                self._network = make()
            if (self(self._example) - self._expected).norm() <= self._tolerance * self._expected.norm():
                return word
        except Exception:  # Another torch, another CPU, no compiler: each breaks in a way of its own.
            pass
        self._network = before
        return f"not {word}"


def has_compiler() -> bool:
    """Whether torch.compile finds a C++ compiler."""
    return any(map(shutil.which, ("g++", "c++", "clang++")))
