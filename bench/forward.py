"""The frozen network's forward pass alone: how near it comes to the machine's peak, and what it changes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
from classifier.engine import Engine
from classifier.views import BATCH_SIZE
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bench import machine
from bench.reference import Hyperparameters, eval_transform
from bench.rounds import THREADS, Seconds, Stopwatch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PLAIN = "plain"


@dataclass(frozen=True)
class Forward:
    """What measure() found, by network: PLAIN, or an engine by its precision.

    seconds: of `pictures`, one item a round. gflop: of one picture. peaks: of matrix products, in 10^9
    operations a second, by precision. largest, relative: the features' differences from PLAIN's, absolute and by norm.
    """

    pictures: int
    gflop: float
    seconds: dict[str, list[Seconds]]
    peaks: dict[str, float]
    largest: dict[str, float]
    relative: dict[str, float]

    def share(self, name: str, precision: str) -> float:
        """How much of the peak the network reaches in its best round."""
        best = min(each.wall for each in self.seconds[name])
        return self.gflop * self.pictures / best / self.peaks[precision]


def measure(
    backbone: str,
    weights: Path,
    folder: Path,
    given: Hyperparameters,
    precisions: Sequence[str],
    rounds: int,
) -> Forward:
    """A batch for each core through the plain network in eval mode, through the engines, and matrix products, in turn.

    The plain network shares every batch between the cores, which is how torch comes; an engine gets a batch from each.
    """
    plain = torchvision.models.get_model(backbone)
    plain.load_state_dict(torch.load(weights, weights_only=True))
    plain.fc = nn.Identity()
    plain.eval()
    batches = [_batch(folder, given, BATCH_SIZE, number) for number in range(THREADS)]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        expected = plain(batches[0])
    engines = {precision: Engine(plain, precision, False, given.image_size) for precision in precisions}
    differences = {precision: engine(batches[0]) - expected for precision, engine in engines.items()}
    seconds, peaks = defaultdict(list), defaultdict(float)
    for _ in range(rounds):
        for precision in precisions:
            peaks[precision] = max(peaks[precision], machine.matmul_gflops(DTYPES[precision]))
        watch = Stopwatch()
        with torch.no_grad():
            list(map(plain, batches))
        seconds[PLAIN].append(watch.read())
        with _cores() as pool:
            for name, engine in engines.items():
                list(pool.map(engine, batches))  # a thread's first call prepares its kernels
                watch = Stopwatch()
                list(pool.map(engine, batches))
                seconds[name].append(watch.read())
    return Forward(
        pictures=sum(map(len, batches)),
        gflop=counter.get_total_flops() / BATCH_SIZE / 1e9,
        seconds=dict(seconds),
        peaks=dict(peaks),
        largest={name: difference.abs().max().item() for name, difference in differences.items()},
        relative={name: (difference.norm() / expected.norm()).item() for name, difference in differences.items()},
    )


@contextmanager
def _cores() -> Iterator[ThreadPoolExecutor]:
    """A thread for each core, torch having one in each, as extraction computes."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(count)


def _batch(folder: Path, given: Hyperparameters, count: int, number: int) -> torch.Tensor:
    transform = eval_transform(given.image_size, given.resize_size)
    paths = sorted(folder.rglob("*.jpg"))
    chosen = [paths[index % len(paths)] for index in range(number * count, (number + 1) * count)]
    return torch.stack([transform(Image.open(path)) for path in chosen])
