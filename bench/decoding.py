"""From a JPEG file to the network's input on one thread, beside Pillow and torchvision's transforms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from classifier.preprocessing import Preprocessing
from PIL import Image

from bench.reference import Hyperparameters, eval_transform
from bench.rounds import Seconds, Stopwatch


def measure(paths: list[Path], given: Hyperparameters, rounds: int) -> dict[str, list[Seconds]]:
    """Seconds of each side for all `paths`, one item a round."""
    transform = eval_transform(given.image_size, given.resize_size)

    def theirs(path: Path) -> None:
        with Image.open(path) as image:
            transform(image.convert("RGB"))

    sides = {"ours": Preprocessing(given.image_size, given.resize_size), "reference": theirs}
    results = {name: [] for name in sides}
    for side in sides.values():  # the first calls load libraries
        side(paths[0])
    for _ in range(rounds):
        for name, side in sides.items():
            results[name].append(_seconds(side, paths))
    return results


def _seconds(side: Callable[[Path], object], paths: list[Path]) -> Seconds:
    watch = Stopwatch()
    for path in paths:
        side(path)
    return watch.read()
