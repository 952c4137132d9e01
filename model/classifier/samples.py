"""What a network trains on, batch by batch: decoded pictures, or features computed before."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from classifier.data import Pictures
from classifier.preprocessing import Preprocessing, Source
from classifier.ranks import ALONE, Ranks

Batch = tuple[torch.Tensor, torch.Tensor]  # inputs float32 [n, ...], targets int64 [n]


class Samples(Protocol):
    """Inputs with targets, read in two ways."""

    targets: Sequence[int]

    def shuffled(self, batch_size: int, epoch: int) -> Iterator[Batch]:
        """One epoch for training: every order and augmentation follows from the seed and the epoch's number."""

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """All samples as they are served, in the order of `targets`."""


@dataclass(frozen=True)
class Augmentation:
    """How a training picture varies. smallest_crop: its least edge against the centre square's; 1 does not crop."""

    smallest_crop: float = 0.75
    horizontal_flip: bool = True

    def view(self, preprocessing: Preprocessing, source: Source, rng: np.random.Generator) -> np.ndarray:
        """One variation of a picture, float32 [3, S, S]; raises PictureError."""
        return preprocessing.augmented(source, rng, self.smallest_crop, self.horizontal_flip)


class PictureSamples:
    """Pictures decoded in threads a few batches ahead, so that memory does not grow with the folder.

    One of several ranks gets its share of each training batch, and its share of the pictures in order; `targets` are
    those of all.
    """

    def __init__(
        self,
        pictures: Pictures,
        preprocessing: Preprocessing,
        augmentation: Augmentation,
        seed: int,
        ranks: Ranks = ALONE,
    ):
        self.pictures, self.preprocessing, self.augmentation, self.seed = pictures, preprocessing, augmentation, seed
        self.targets, self.ranks = pictures.targets, ranks

    def shuffled(self, batch_size: int, epoch: int) -> Iterator[Batch]:
        # A generator of its own for each picture keeps the result independent of which thread comes first.
        batches = _training_batches(len(self.targets), batch_size, self.seed, epoch)
        return self._read([batch[self.ranks.rank :: self.ranks.world] for batch in batches], epoch)

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        share = np.array_split(np.arange(len(self.targets)), self.ranks.world)[self.ranks.rank]
        return self._read(np.split(share, range(batch_size, len(share), batch_size)))

    def _read(self, batches: Sequence[np.ndarray], epoch: int | None = None) -> Iterator[Batch]:
        with ThreadPoolExecutor() as pool:
            waiting = deque()
            try:
                for indices in batches:
                    waiting.append((indices, [pool.submit(self._pixels, index, epoch) for index in indices]))
                    if len(waiting) > 2:
                        yield self._stack(*waiting.popleft())
                while waiting:
                    yield self._stack(*waiting.popleft())
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _pixels(self, index: int, epoch: int | None) -> np.ndarray:
        path = self.pictures.paths[index]
        if epoch is None:
            return self.preprocessing(path)
        rng = np.random.default_rng((self.seed, epoch, int(index)))
        return self.augmentation.view(self.preprocessing, path, rng)

    def _stack(self, indices: np.ndarray, pixels: list) -> Batch:
        inputs = torch.from_numpy(np.stack([future.result() for future in pixels]))
        return inputs, torch.tensor([self.targets[index] for index in indices])


class FeatureSamples:
    """Features held in memory, [N, features], or [N, views, features] where each sample was seen in several ways."""

    def __init__(self, features: torch.Tensor, targets: Sequence[int], seed: int):
        self._views = features if features.dim() == 3 else features[:, None]
        self.targets, self.seed = targets, seed
        self._targets = torch.tensor(targets)

    @property
    def features(self) -> torch.Tensor:
        """[N, features] of the samples as they are served: the first view."""
        return self._views[:, 0]

    def shuffled(self, batch_size: int, epoch: int) -> Iterator[Batch]:
        rng = np.random.default_rng((self.seed, epoch, 1))
        views = torch.from_numpy(rng.integers(self._views.shape[1], size=len(self.targets)))
        for indices in map(torch.from_numpy, _training_batches(len(self.targets), batch_size, self.seed, epoch)):
            yield self._views[indices, views[indices]].float(), self._targets[indices]

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        for features, targets in zip(self.features.split(batch_size), self._targets.split(batch_size), strict=True):
            yield features.float(), targets


def steps_per_epoch(count: int, batch_size: int) -> int:
    """How many batches shuffled() gives of `count` samples."""
    return max(1, count // batch_size)


def _training_batches(count: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    order = np.random.default_rng((seed, epoch)).permutation(count)
    # The incomplete last batch is left to the next epoch's order: BatchNorm cannot use a batch of one.
    return [order[step * batch_size : (step + 1) * batch_size] for step in range(steps_per_epoch(count, batch_size))]
