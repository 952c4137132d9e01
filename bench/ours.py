"""Our side of each comparison: model/'s own code, called as train.py and hpo.py call it."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import hpo
import train
from classifier.checkpoint import Checkpoint
from classifier.task import Task, recipe_from, task_from
from torch import nn

from bench.rounds import Seconds, Stopwatch

Arguments = Sequence[str | int | float | Path]


@contextmanager
def cold() -> Iterator[list[str]]:
    """train.py's flags for a feature cache and checkpoints that are empty, and are gone afterwards."""
    with TemporaryDirectory() as folder:
        yield ["--feature-cache", f"{folder}/features", "--checkpoint-dir", f"{folder}/checkpoints"]


def asked(arguments: Arguments) -> tuple[Namespace, Task]:
    """What these flags of train.py ask for."""
    options = train.parser().parse(list(map(str, arguments)))
    return options, task_from(options)


def extraction(arguments: Arguments) -> Seconds:
    """Of all pictures' features, from the files to the cache; the making of the engine counts in CPU seconds only."""
    with cold() as flags:
        _, task = asked([*arguments, *flags])
        watch = Stopwatch()
        done = task.extracted
        return Seconds(done.computed / done.pictures_per_second, watch.read().cpu)


def training(arguments: Arguments) -> Seconds:
    """From the folders to a trained head and its answers for the test pictures, with checkpoints."""
    with cold() as flags:
        watch = Stopwatch()
        network, task = trained([*arguments, *flags])
        task.test_logits(network)
        return watch.read()


def trained(arguments: Arguments) -> tuple[nn.Module, Task]:
    """The network that these flags of train.py train."""
    options, task = asked(arguments)
    recipe = recipe_from(options, task, options.learning_rate, options.batch_size)
    options.checkpoint_dir.mkdir(parents=True, exist_ok=True)
    checkpoint = Checkpoint(options.checkpoint_dir, task.fingerprint(options.hidden, recipe))
    network, _ = task.train(options.hidden, recipe, lambda epoch: None, checkpoint)
    return network, task


def search(arguments: Arguments) -> Seconds:
    """All of hpo.py but its imports."""
    with TemporaryDirectory() as folder:
        flags = ["--feature-cache", f"{folder}/features", "--storage", f"{folder}/study.db"]
        flags += ["--output", f"{folder}/best.json", "--report", f"{folder}/report.html"]
        with mock.patch.object(sys, "argv", ["hpo.py", *map(str, arguments), *flags]):
            watch = Stopwatch()
            hpo.main()
            return watch.read()
