"""Training and search on a frozen backbone, beside torchvision's way of doing them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
import torchvision
from classifier.engine import chosen_precision

from bench import MODEL, accuracy, decoding, forward, memory, ours, reference, rounds
from bench.pictures import write_folder
from bench.reference import Hyperparameters
from bench.rounds import Stopwatch
from bench.table import Row, agreeing, compared, limited

PARTS = ("decoding", "forward", "extraction", "training", "memory", "accuracy")
# How many times as fast as the reference, and what is aimed at.
PROMISED = {
    "extraction, fp32": (2, 2.1),
    "extraction, bf16": (4, 5),
    "training, fp32, 1-view": (8, 11),
    "training, fp32, 4-view": (2.5, 3),
    "search, fp32, 1-view": (70, 100),
    "search, fp32, 4-view": (20, 30),
}
MEMORY_LIMIT_GB = 3
EQUAL = Hyperparameters()  # for both sides


@dataclass(frozen=True)
class Scale:
    """How much is measured. pictures: trained on, beside an eighth or so each to validate and to test, as of the dogs.

    All of them fill whole batches on two cores: half-filled ones would cost what they do not with thousands.
    """

    rounds: int = 3
    pictures: int = 208
    kept: int = 24
    pictures_for_memory: int = 5688  # 7,000 in all
    large_pictures: int = 6
    classes: int = 8
    backbone: str = "resnet50"
    size: tuple[int, int] = (500, 375)
    large_size: tuple[int, int] = (1600, 1200)
    trials: int = 10
    digit_epochs: int = 10
    seeds: int = 3
    given: Hyperparameters = EQUAL


QUICK = Scale(rounds=2, pictures=48, kept=8, pictures_for_memory=64, large_pictures=2)


class Training:
    """The parts of the table; pictures, weights and caches lie in `scratch`."""

    def __init__(self, scale: Scale, scratch: Path):
        self.scale, self.scratch = scale, scratch
        self.precisions = ["fp32", "bf16"] if chosen_precision("auto") == "bf16" else ["fp32"]

    @cached_property
    def folder(self) -> Path:
        """Split folders of class folders."""
        return self._pictures("pictures", self.scale.pictures, self.scale.size)

    @cached_property
    def weights(self) -> Path:
        """A state dict of random weights: speed does not depend on them."""
        path = self.scratch / "weights.pt"
        torch.save(torchvision.models.get_model(self.scale.backbone).state_dict(), path)
        return path

    def decoding(self) -> list[Row]:
        """From the file to the network's input, on one thread."""
        rows, scale = [], self.scale
        large = write_folder(self.scratch / "large", {"train": scale.large_pictures}, 1, scale.large_size)
        for folder, (width, height) in ((self.folder, scale.size), (large, scale.large_size)):
            paths = sorted(folder.rglob("*.jpg"))
            found = rounds.alone(partial(decoding.measure, paths, scale.given, scale.rounds), threads=1)
            what = f"decode + transform, {width} x {height}, 1 thread"
            rows.append(compared(what, found["ours"], found["reference"], pictures=len(paths)))
        return rows

    def forward(self) -> list[Row]:
        """The engine beside the plain network and the machine's peak, and the difference it makes."""
        scale = self.scale
        work = partial(forward.measure, scale.backbone, self.weights, self.folder, scale.given, self.precisions)
        found = rounds.alone(partial(work, 5 * scale.rounds))
        rows, plain = [], found.seconds[forward.PLAIN]
        for precision in self.precisions:
            rows.append(compared(f"forward, {precision}", found.seconds[precision], plain, pictures=found.pictures))
            share, plain_share = found.share(precision, precision), found.share(forward.PLAIN, "fp32")
            what = f"... of the {found.peaks[precision]:.0f} GFLOP/s of {precision} matrix products"
            rows.append(Row(what, f"{share:.0%}", f"{plain_share:.0%}" if precision == "fp32" else ""))
            if precision == "fp32":
                rows.append(limited("... largest difference of a feature", found.largest[precision], 1e-4))
            else:
                rows.append(limited("... difference of the features", 100 * found.relative[precision], 1, " %"))
        return rows

    def extraction(self) -> list[Row]:
        """Every picture to its features, nothing kept before."""
        works = {"reference": partial(reference.forward, *self._reference_arguments())}
        for precision in self.precisions:
            works[f"extraction, {precision}"] = partial(ours.extraction, self._flags(precision))
        found = rounds.in_turn(self.scale.rounds, works)
        count = len(list(self.folder.rglob("*.jpg")))
        theirs = found.pop("reference")
        return [compared(what, own, theirs, PROMISED.get(what), pictures=count) for what, own in found.items()]

    def training(self) -> list[Row]:
        """Whole trainings, and searches, for which the reference is trained again in each trial."""
        given, trials = self.scale.given, self.scale.trials
        choice = ["--batch-size", given.batch_size, "--learning-rate", given.learning_rate]
        epochs, views = ["--epochs", given.epochs], {views: ["--views", views] for views in (1, 4)}
        works = {"reference": partial(reference.train, *self._reference_arguments())}
        for precision in self.precisions:
            for number, flag in views.items():
                flags = [*self._flags(precision), *epochs, *flag, *choice]
                works[f"training, {precision}, {number}-view"] = partial(ours.training, flags)
        for number, flag in views.items():
            flags = [*self._flags("fp32"), *epochs, *flag, "--trials", trials, "--pruner", "none"]
            works[f"search, fp32, {number}-view"] = partial(ours.search, flags)
        found = rounds.in_turn(self.scale.rounds, works)
        theirs = found.pop("reference")
        sides = {
            "training": (f"{given.epochs} epochs", [each["all"] for each in theirs]),
            "search": (f"{trials} trials of {given.epochs}", [each["epochs"].times(trials) for each in theirs]),
        }
        rows = []
        for what, own in found.items():
            kind, rest = what.split(", ", 1)
            title, reference_seconds = sides[kind]
            rows.append(compared(f"{title}, {rest}", own, reference_seconds, PROMISED.get(what)))
        measured = f"the reference's search: {len(theirs)} of {trials} trainings measured, their median times {trials}"
        return [*rows, Row(f"({measured})", "")]

    def memory(self) -> list[Row]:
        """train.py, the whole command, on as many pictures as the dogs are."""
        scale, given = self.scale, self.scale.given
        folder = self._pictures("many", scale.pictures_for_memory, scale.size)
        output = self.scratch / "output"
        command = [sys.executable, MODEL / "train.py", *self._flags("auto", folder), "--epochs", given.epochs]
        command += ["--model-dir", self.scratch / "model", "--archive", self.scratch / "model.tar.gz"]
        with ours.cold() as flags:
            command += ["--output-data-dir", output, *flags]
            watch = Stopwatch()
            peak = memory.peak_bytes(list(map(str, command)), stdout=subprocess.DEVNULL)
            seconds = watch.read()
        count = len(list(folder.rglob("*.jpg")))
        speed = json.loads((output / "metrics.json").read_text())["speed"]
        what = f"train.py, the whole command, {count} pictures"
        return [
            limited(f"{what}: memory", peak / 1e9, MEMORY_LIMIT_GB, " GB"),
            Row("... its time", f"{seconds.wall:.1f} s, CPU {seconds.cpu:.1f} s"),
            Row("... of that extraction", f"{speed['extraction_pictures_per_second']:.1f}/s, {speed['engine']}"),
        ]

    def accuracy(self) -> list[Row]:
        """Of heads for digits on a backbone that has seen the other digits."""
        known, new = accuracy.write_halves(self.scratch / "digits")
        backbone = self.scratch / "digits.pt"
        # One thread: on pictures of 32 x 32 others wait more than they compute.
        rounds.alone(partial(accuracy.save_backbone, known, backbone), threads=1)
        work = partial(accuracy.measure, new, backbone, self.scale.digit_epochs)
        found = [rounds.alone(partial(work, seed), threads=1) for seed in range(self.scale.seeds)]
        plain = [each.pop("plain") for each in found]
        what = f"accuracy on digits, {len(found)} seeds, "
        return [agreeing(what + path, [each[path] for each in found], plain) for path in found[0]]

    def _pictures(self, name: str, count: int, size: tuple[int, int]) -> Path:
        kept = count * self.scale.kept // self.scale.pictures
        counts = {"train": count, "valid": kept, "test": kept}
        return write_folder(self.scratch / name, counts, self.scale.classes, size)

    def _flags(self, precision: str, folder: Path | None = None) -> list:
        return [
            *("--train", folder or self.folder),
            *("--weights", self.weights),
            *("--backbone", self.scale.backbone),
            *("--image-size", self.scale.given.image_size),
            *("--precision", precision),
        ]

    def _reference_arguments(self) -> tuple:
        return self.folder, self.scale.backbone, self.weights, self.scale.given


def rows(quick: bool, scratch: Path, parts: Sequence[str]) -> list[Row]:
    """The table's, or of some parts of it."""
    return measured(QUICK if quick else Scale(), scratch, parts)


def measured(scale: Scale, scratch: Path, parts: Sequence[str]) -> list[Row]:
    """Everything that the parts, names of PARTS, tell at this scale."""
    training, found = Training(scale, scratch), []
    for name in parts:
        print(f"{name} ...", file=sys.stderr, flush=True)
        found += getattr(training, name)()
    return found
