"""Views of pictures, and their features by a frozen backbone: looked up in a cache, or computed on every core."""

import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from classifier.engine import BATCH_SIZE, Engine
from classifier.feature_cache import FeatureCache
from classifier.preprocessing import PictureError, Preprocessing
from classifier.samples import Augmentation

# To be raised with every change, here or in preprocessing, that changes features.
REVISION = 1
KEYS_TOGETHER = 1024
# What became of a view: its picture cannot be decoded, or its features were computed, or kept from earlier.
DAMAGED, COMPUTED, CACHED = 0, 1, 2


class View(NamedTuple):
    """A picture by the sha256 of its file, and the number of the view: 0 as it is served, others augmented."""

    content: bytes
    number: int


class ViewFeatures:
    """Rows of features by one backbone, which has no head and gives float32 [n, width].

    paths: a file for each content. engine: called once, when something is to be computed.
    """

    def __init__(
        self,
        backbone: nn.Module,
        width: int,
        preprocessing: Preprocessing,
        augmentation: Augmentation,
        paths: Mapping[bytes, Path],
        precision: str,
        engine: Callable[[], Engine],
    ):
        self.width, self.preprocessing, self.augmentation, self.paths = width, preprocessing, augmentation, paths
        self._make_engine = engine
        self._served = _digest(_description(backbone, precision), json.dumps(preprocessing.to_json()).encode())
        self._augmented = _digest(self._served, json.dumps(asdict(augmentation)).encode())
        self.seconds = 0.0

    @cached_property
    def engine(self) -> Engine:
        return self._make_engine()

    def key(self, view: View) -> bytes:
        """What a view's features are kept under: all that they depend on."""
        space = self._augmented if view.number else self._served
        return _digest(space, view.content, view.number.to_bytes(8))

    def rows(
        self, views: Sequence[View], cache: FeatureCache, on_progress: Callable[[int, int], None]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features float16 [n, width] of the views, and uint8 [n] of what became of each; the cache keeps them."""
        rows = torch.zeros(len(views), self.width, dtype=torch.float16)
        state = torch.full([len(views)], DAMAGED, dtype=torch.uint8)
        keys = [self.key(view) for view in views]
        for start in range(0, len(keys), KEYS_TOGETHER):
            found = cache.get(keys[start : start + KEYS_TOGETHER])
            for index, key in enumerate(keys[start : start + KEYS_TOGETHER], start):
                if len(row := found.get(key, b"")) == rows[index].nbytes:
                    rows[index], state[index] = torch.frombuffer(bytearray(row), dtype=torch.float16), CACHED
        missing = (state == DAMAGED).nonzero().flatten().tolist()
        done = len(views) - len(missing)
        on_progress(done, len(views))
        if not missing:
            return rows, state
        with _threads_of_one() as threads:
            engine, started = self.engine, time.monotonic()
            for indices, (features, readable) in self._computed(engine, views, missing, threads):
                rows[indices], state[indices] = features, readable * COMPUTED
                # At once, so that a run that is killed has lost a few batches and no more.
                self.keep(cache, [views[index] for index in indices], features, readable)
                done += len(indices)
                on_progress(done, len(views))
            self.seconds = time.monotonic() - started
        return rows, state

    def keep(self, cache: FeatureCache, views: Sequence[View], rows: torch.Tensor, state: torch.Tensor) -> None:
        """Put the rows of views that could be decoded into the cache."""
        kept = zip(views, rows, state.tolist(), strict=True)
        cache.put({self.key(view): row.numpy().tobytes() for view, row, became in kept if became != DAMAGED})

    def _computed(
        self, engine: Engine, views: Sequence[View], missing: list[int], threads: int
    ) -> Iterator[tuple[list[int], tuple[torch.Tensor, torch.Tensor]]]:
        """(indices, (float16 [n, width], uint8 [n], 1 where readable)) of the missing views, in order.

        Each thread decodes and computes batches of its own. Threads that share a batch wait for each other at every
        layer, the longer the busier the machine is; and so a picture's features do not depend on how many there are.
        """
        batches = deque(missing[start : start + BATCH_SIZE] for start in range(0, len(missing), BATCH_SIZE))
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            waiting = deque()
            try:
                while batches or waiting:
                    while batches and len(waiting) < 2 * threads:
                        indices = batches.popleft()
                        waiting.append((indices, pool.submit(self._batch, engine, [views[index] for index in indices])))
                    indices, future = waiting.popleft()
                    yield indices, future.result()
            finally:
                pool.shutdown(cancel_futures=True)

    def _batch(self, engine: Engine, views: list[View]) -> tuple[torch.Tensor, torch.Tensor]:
        # One size for every batch: the last must not be computed by other kernels than the others.
        pixels = torch.zeros(BATCH_SIZE, 3, self.preprocessing.image_size, self.preprocessing.image_size)
        readable = torch.zeros(len(views), dtype=torch.uint8)
        for index, view in enumerate(views):
            with suppress(PictureError):
                pixels[index], readable[index] = torch.from_numpy(self._pixels(view)), 1
        return engine(pixels)[: len(views)].half(), readable

    def _pixels(self, view: View) -> np.ndarray:
        path = self.paths[view.content]
        if view.number == 0:
            return self.preprocessing(path)
        rng = np.random.default_rng((int.from_bytes(view.content), view.number))
        return self.augmentation.view(self.preprocessing, path, rng)


@contextmanager
def _threads_of_one() -> Iterator[int]:
    """How many threads torch had, while it has one in each of that many."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield count
    finally:
        torch.set_num_threads(count)


def _description(backbone: nn.Module, precision: str) -> bytes:
    digest = hashlib.sha256(f"{REVISION} {precision} {backbone}".encode())
    for name, value in backbone.state_dict().items():
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return digest.digest()


def _digest(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()
