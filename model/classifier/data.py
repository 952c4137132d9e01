"""Folders of class folders of pictures: scanning, checking and splitting."""

import random
import sys
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from classifier.mistake import Mistake
from classifier.preprocessing import PictureError, read_picture

PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"}
VALIDATION_NAMES = ("validation", "valid", "val")
# Of what is given for training, a class's share that is put aside, at least one picture each.
VALIDATION_SHARE = TEST_SHARE = 0.15


@dataclass(frozen=True)
class Pictures:
    """Picture files and their classes: targets[i] is the index in `labels` of paths[i]'s class."""

    paths: list[Path]
    targets: list[int]
    labels: list[str]

    def __len__(self) -> int:
        return len(self.paths)

    def subset(self, indices: Sequence[int]) -> "Pictures":
        """The pictures at these indices, with all labels."""
        return Pictures([self.paths[i] for i in indices], [self.targets[i] for i in indices], self.labels)


@dataclass(frozen=True)
class Splits:
    """What training, the choice of the best epoch, and the final figures are computed on; all with the same labels."""

    train: Pictures
    validation: Pictures
    test: Pictures


def load_splits(train: Path, validation: Path | None, test: Path | None, *, seed: int, strict: bool = False) -> Splits:
    """Scan the folders and split off of `train`, by class, what is not given.

    `train` may also be a folder with train and, optionally, validation (or valid, val) and test folders in it. Damaged
    pictures are named on stderr and left out, or refused with `strict`. Raises Mistake naming the folder at fault.
    """
    _require_folder(train, "--train")
    if (train / "train").is_dir():
        validation = validation or next((train / name for name in VALIDATION_NAMES if (train / name).is_dir()), None)
        test = test or (train / "test" if (train / "test").is_dir() else None)
        train = train / "train"
    pictures = _scan(train, "--train", None, strict)
    if len(pictures.labels) < 2:
        raise Mistake(f"--train {train} has one class only, {pictures.labels[0]}; a classifier needs two or more")
    given_validation = _scan(validation, "--validation", pictures.labels, strict) if validation else None
    given_test = _scan(test, "--test", pictures.labels, strict) if test else None
    if given_test is None:
        given_test, pictures = _split_off(pictures, TEST_SHARE, seed, "test")
    if given_validation is None:
        given_validation, pictures = _split_off(pictures, VALIDATION_SHARE, seed + 1, "validation")
    return Splits(pictures, given_validation, given_test)


def _require_folder(folder: Path, flag: str) -> None:
    if not folder.is_dir():
        raise Mistake(f"{flag} {folder} is not a folder")


def _scan(folder: Path, flag: str, labels: list[str] | None, strict: bool) -> Pictures:
    """The readable pictures below a folder's class folders, in an order that does not depend on the file system."""
    _require_folder(folder, flag)
    found = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not found:
        raise Mistake(f"{flag} {folder} has no class folders; expected {folder}/<class>/<picture>")
    unknown = [name for name in found if labels is not None and name not in labels]
    if unknown:
        raise Mistake(f"{flag} {folder} has the class {unknown[0]}, which the training folder lacks")
    labels = labels or found
    paths = [path for name in found for path in _class_pictures(folder / name, flag)]
    kept = _check(paths, flag, folder, strict)
    targets = [labels.index(path.relative_to(folder).parts[0]) for path in kept]
    emptied = set(found) - {labels[target] for target in targets}
    if emptied:
        raise Mistake(f"{flag} {folder / min(emptied)} has no readable picture left")
    return Pictures(kept, targets, labels)


def _class_pictures(folder: Path, flag: str) -> list[Path]:
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not paths:
        raise Mistake(f"{flag} {folder} is an empty class: it has no {', '.join(sorted(PICTURE_SUFFIXES))} file")
    return paths


def _check(paths: list[Path], flag: str, folder: Path, strict: bool) -> list[Path]:
    """Decode each picture once, so that a damaged one is known before the hours of training and not after."""

    def problem(path: Path) -> str | None:
        try:
            read_picture(path)
        except PictureError as error:
            return str(error)
        return None

    with ThreadPoolExecutor() as pool:
        problems = list(pool.map(problem, paths))
    damaged = [(path, reason) for path, reason in zip(paths, problems, strict=True) if reason]
    if damaged and strict:
        path, reason = damaged[0]
        raise Mistake(f"{path}: {reason} ({len(damaged)} such in {flag} {folder}, refused by --strict)")
    for path, reason in damaged:
        print(f"skipped {path}: {reason}", file=sys.stderr)
    if damaged:
        print(f"skipped {len(damaged)} of {len(paths)} pictures in {folder}", file=sys.stderr)
    return [path for path, reason in zip(paths, problems, strict=True) if not reason]


def _split_off(pictures: Pictures, share: float, seed: int, purpose: str) -> tuple[Pictures, Pictures]:
    """Stratified: (the share of each class, rounded, at least one picture; the rest)."""
    members = defaultdict(list)
    for index, target in enumerate(pictures.targets):
        members[target].append(index)
    chosen = set()
    rng = random.Random(seed)
    for target, indices in sorted(members.items()):
        count = max(1, round(share * len(indices)))
        if count >= len(indices):
            label = pictures.labels[target]
            raise Mistake(f"class {label} has {len(indices)} picture(s), too few to split off {purpose}: add pictures")
        chosen.update(rng.sample(indices, count))
    rest = [index for index in range(len(pictures)) if index not in chosen]
    return pictures.subset(sorted(chosen)), pictures.subset(rest)
