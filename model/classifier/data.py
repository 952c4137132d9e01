"""Folders of class folders of pictures: scanning, checking and splitting."""

import hashlib
import os
import random
import stat
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from classifier.mistake import Mistake
from classifier.preprocessing import EncodedPicture, PictureError, check_header

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
LABELS_NAME = "labels.txt"
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


def load_splits(
    train: Path, validation: Path | None, test: Path | None, *, seed: int, strict: bool = False, verify: bool = True
) -> Splits:
    """Scan the folders and split off of `train`, by class, what is not given.

    `train` may also be a folder with train and, optionally, validation (or valid, val) and test folders in it. Its file
    labels.txt, where there is one, lists the class folders in the order of the logits; else they are sorted. Pictures
    that cannot be read are named on stderr and left out. With `verify` all are decoded to find the damaged ones,
    without it only their headers are read, for who decodes each of them next anyway.

    Raises Mistake naming the folder at fault; with `strict` also for pictures that cannot be read and for classes
    without a picture in validation or test, which else are only named on stderr.
    """
    try:
        return _load_splits(train, validation, test, seed, strict, verify)
    except OSError as error:
        raise Mistake(f"{error.filename} cannot be read: {error.strerror}") from error


def _load_splits(
    train: Path, validation: Path | None, test: Path | None, seed: int, strict: bool, verify: bool
) -> Splits:
    given = train
    _require_folder(train, "--train")
    if (train / "train").is_dir():
        validation = validation or next((train / name for name in VALIDATION_NAMES if (train / name).is_dir()), None)
        test = test or (train / "test" if (train / "test").is_dir() else None)
        train = train / "train"
    labels = _class_names(train, "--train")
    for listing in (train / LABELS_NAME, given / LABELS_NAME):
        if listing.exists():
            labels = _listed(listing, labels, train)
            break
    if len(labels) < 2:
        raise Mistake(f"--train {train} has one class only, {labels[0]}; a classifier needs two or more")
    pictures = _scan(train, "--train", labels, strict, verify)
    given_validation = _scan(validation, "--validation", labels, strict, verify) if validation else None
    given_test = _scan(test, "--test", labels, strict, verify) if test else None
    if given_test is None:
        given_test, pictures = _split_off(pictures, TEST_SHARE, seed, "test")
    if given_validation is None:
        given_validation, pictures = _split_off(pictures, VALIDATION_SHARE, seed + 1, "validation")
    evaluated = {"validation": given_validation, "test": given_test}
    for name, part in evaluated.items():
        _warn_of_missing_classes(part, name, strict)
    _warn_of_leaks(pictures, evaluated)
    return Splits(pictures, given_validation, given_test)


def _require_folder(folder: Path, flag: str) -> None:
    if not folder.is_dir():
        raise Mistake(f"{flag} {folder} is not a folder")
    # Where it may not be read, this says so; a look for a folder in it would blame that one.
    os.scandir(folder).close()


def _class_names(folder: Path, flag: str) -> list[str]:
    """The class folders, sorted: an order that does not depend on the file system."""
    _require_folder(folder, flag)
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".")]
    names = sorted(entry.name for entry in visible if entry.is_dir())
    if not names:
        raise Mistake(f"{flag} {folder} has no class folders; expected {folder}/<class>/<picture>")
    ignored = [entry.name for entry in visible if not entry.is_dir() and _looks_like_data(entry)]
    if ignored:
        _warn(f"ignored {len(ignored)} entries of {folder} that are no class folders, such as {min(ignored)}")
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            # It would go into JSON, reports and answers.
            raise Mistake(f"{flag} {folder} has a class folder whose name is not UTF-8, {name!r}: rename it") from error
    return names


def _looks_like_data(entry: os.DirEntry) -> bool:
    """A picture beside the class folders, or a link that leads nowhere."""
    return _is_picture_name(entry.name) or not os.path.exists(entry.path)


def _listed(listing: Path, found: list[str], folder: Path) -> list[str]:
    """The class folders in the order of labels.txt, which must name each once."""
    try:
        lines = listing.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise Mistake(f"{listing} is not UTF-8 text: save it as such") from error
    labels, missing = {}, set(found)
    for number, line in enumerate(lines, start=1):
        name = line.strip()
        if not name:
            continue
        if name in labels:
            raise Mistake(f"{listing}, line {number}: {name} is already in line {labels[name]}: remove one")
        if name not in missing:
            raise Mistake(f"{listing}, line {number}: {folder} has no class folder {name}: add it, or remove the line")
        labels[name] = number
        missing.remove(name)
    if missing:
        raise Mistake(f"{listing} lacks a line for the class folder {min(missing)} of {folder}: add it")
    return list(labels)


def _scan(folder: Path, flag: str, labels: list[str], strict: bool, verify: bool) -> Pictures:
    """The readable pictures below a folder's class folders, class by class in the order of `labels`."""
    _require_folder(folder, flag)
    for label in labels:
        if (folder / label).is_file():
            raise Mistake(f"{flag} {folder / label} is a file; expected the folder of the class {label}")
    found = set(_class_names(folder, flag))
    if unknown := found - set(labels):
        raise Mistake(f"{flag} {folder} has the class {min(unknown)}, which the training folder lacks")
    paths, targets = [], []
    for target, label in enumerate(labels):
        if label in found:
            members = _class_pictures(folder / label, flag)
            paths += members
            targets += [target] * len(members)
    readable = _readable(paths, flag, folder, strict, verify)
    pictures = Pictures(paths, targets, labels).subset(readable)
    if emptied := set(targets) - set(pictures.targets):
        raise Mistake(f"{flag} {folder / labels[min(emptied)]} has no readable picture left")
    return pictures


def _class_pictures(folder: Path, flag: str) -> list[Path]:
    """The pictures in a folder and those below it, links to folders included, sorted."""

    def refuse(error: OSError) -> None:
        raise error

    paths, seen = [], {}
    for parent, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        status = os.stat(parent)
        first = seen.setdefault((status.st_dev, status.st_ino), parent)
        if first != parent:
            raise Mistake(f"{flag} {parent} is a link to {first}, whose pictures count already: remove it")
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [Path(parent, name) for name in names if _is_picture_name(name)]
    if not paths:
        raise Mistake(f"{flag} {folder} is an empty class: it has no {', '.join(sorted(PICTURE_SUFFIXES))} file")
    return sorted(paths)


def _is_picture_name(name: str) -> bool:
    return name.lower().endswith(PICTURE_SUFFIXES) and not name.startswith(".")


def _readable(paths: list[Path], flag: str, folder: Path, strict: bool, verify: bool) -> list[int]:
    """The indices of the pictures that can be read: a damaged one is known before the hours of training, not after."""

    def problem(path: Path) -> str | None:
        try:
            # Else a pipe would be waited on.
            if not stat.S_ISREG(path.stat().st_mode):
                return "is not a file"
            if verify:
                EncodedPicture.open(path).verify()
            else:
                check_header(path)
        except PictureError as error:
            return str(error)
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        return None

    with ThreadPoolExecutor() as pool:
        problems = list(pool.map(problem, paths))
    damaged = [(path, reason) for path, reason in zip(paths, problems, strict=True) if reason]
    if damaged and strict:
        path, reason = damaged[0]
        raise Mistake(f"{path}: {reason} ({len(damaged)} such in {flag} {folder}, refused by --strict)")
    for path, reason in damaged:
        _warn(f"skipped {path}: {reason}")
    if damaged:
        _warn(f"skipped {len(damaged)} of {len(paths)} pictures in {folder}")
    return [index for index, reason in enumerate(problems) if not reason]


def _warn_of_missing_classes(part: Pictures, name: str, strict: bool) -> None:
    """A class that is not tested is no reason to refuse training, but none to claim its accuracy either."""
    missing = [part.labels[target] for target in sorted(set(range(len(part.labels))) - set(part.targets))]
    if missing:
        text = f"{len(missing)} of {len(part.labels)} classes have no picture in {name}, such as {missing[0]}"
        if strict:
            raise Mistake(f"{text}: add one, or leave --strict out")
        _warn(f"{text}: its figures say nothing about them")


def _warn_of_leaks(train: Pictures, evaluated: Mapping[str, Pictures]) -> None:
    """A picture that was trained on proves nothing where the network is evaluated on it."""
    # Only equal sizes are worth a hash, and few pictures have them.
    wanted = {_size(path) for part in evaluated.values() for path in part.paths}
    alike = [path for path in train.paths if _size(path) in wanted]
    sizes, trained_on = {_size(path) for path in alike}, {_digest(path): path for path in alike}
    for name, part in evaluated.items():
        digests = {path: _digest(path) for path in part.paths if _size(path) in sizes}
        leaks = [path for path, digest in digests.items() if digest in trained_on]
        if leaks:
            example = f"{leaks[0]}, which equals {trained_on[digests[leaks[0]]]}"
            text = f"{len(leaks)} of {len(part)} pictures in {name} are also trained on"
            _warn(f"{text}, such as {example}: remove them, they flatter the figures")


def _size(path: Path) -> int:
    return path.stat().st_size


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _warn(text: str) -> None:
    print(text, file=sys.stderr)


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
