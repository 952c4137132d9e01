"""Event files for TensorBoard: optional, because no training should fail for want of its pictures."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from types import ModuleType

from classifier.fit import Epoch

# TensorBoard draws the tags of one prefix side by side.
TAGS = {
    "train_loss": "loss/train",
    "validation_loss": "loss/validation",
    "validation_accuracy": "accuracy/validation",
}


@contextmanager
def writer(folder: Path) -> Iterator["Writer"]:
    """Writes event files into `folder`; where the package is absent, says so on stderr and writes nothing."""
    try:
        from torch.utils import tensorboard
    except ImportError:
        print("no TensorBoard logs: the package tensorboard is not installed", file=sys.stderr)
        tensorboard = None
    events = Writer(folder, tensorboard)
    try:
        yield events
    finally:
        events.close()


def _optional(write: Callable) -> Callable:
    @wraps(write)
    def attempt(self, *arguments) -> None:
        try:
            if self._package:
                write(self, *arguments)
        except OSError as error:
            print(f"no more TensorBoard logs: {self._folder}: {error.strerror}", file=sys.stderr)
            self._package = None

    return attempt


class Writer:
    """One run's event file, opened by its first epoch. package: torch.utils.tensorboard; None writes nothing."""

    def __init__(self, folder: Path, package: ModuleType | None):
        self._folder, self._package, self._events = folder, package, None

    @_optional
    def epoch(self, epoch: Epoch) -> None:
        """Adds one epoch's figures, and has them in the file on return: a killed run shows them."""
        self._epoch(epoch)

    @_optional
    def summary(self, metrics: Mapping) -> None:
        """Adds the test figures of metrics.json's content, at the last epoch, and the recipe, to compare runs by."""
        if self._events is None:
            # Killed after its last epoch: this process has trained none.
            self._epoch(Epoch(**metrics["history"][-1]))
        test = {f"{name}/test": metrics[f"test_{name}"] for name in ("accuracy", "loss")}
        for tag, value in test.items():
            self._events.add_scalar(tag, value, metrics["epochs"])
        for part in self._package.summary.hparams(dict(metrics["recipe"]), test):
            self._events.file_writer.add_summary(part)
        self._events.flush()

    @_optional
    def close(self) -> None:
        """Ends the event file."""
        if self._events is not None:
            self._events.close()

    def _epoch(self, epoch: Epoch) -> None:
        if self._events is None:
            # A resumed run repeats the epochs after its checkpoint: TensorBoard drops what it had from there on.
            self._events = self._package.SummaryWriter(str(self._folder), purge_step=epoch.epoch)
        for name, value in asdict(epoch).items():
            if name != "epoch":
                self._events.add_scalar(TAGS.get(name, name), value, epoch.epoch)
        self._events.flush()
