"""Scanning and splitting folders."""

from __future__ import annotations

import io
import itertools
import os
import tempfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from classifier.data import load_splits
from classifier.mistake import Mistake
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

SERIAL = itertools.count()


def png() -> bytes:
    """A picture that no other equals."""
    number, buffer = next(SERIAL), io.BytesIO()
    Image.frombytes("RGB", (2, 1), number.to_bytes(6)).save(buffer, "PNG")
    return buffer.getvalue()


def folder_of(root, **counts):
    for label, count in counts.items():
        (root / label).mkdir(parents=True)
        for number in range(count):
            (root / label / f"{number}.png").write_bytes(png())
    return root


def refused(match, train, validation=None, test=None, **options):
    """The folders are a mistake of the user's, told in one line."""
    with pytest.raises(Mistake, match=match) as caught:
        load_splits(train, validation, test, seed=0, **options)
    assert "\n" not in str(caught.value)


def sizes(splits) -> tuple[int, int, int]:
    return len(splits.train), len(splits.validation), len(splits.test)


@contextmanager
def ordinary_user():
    """Root may read everything; run as nobody."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_without_validation_and_test_both_are_split_off_by_class(tmp_path):
    splits = load_splits(folder_of(tmp_path, a=40, b=20), None, None, seed=3)
    parts = (splits.train, splits.validation, splits.test)
    assert [dict(Counter(part.targets)) for part in parts] == [{0: 29, 1: 14}, {0: 5, 1: 3}, {0: 6, 1: 3}]
    assert len({path for part in parts for path in part.paths}) == 60
    assert all(part.labels[t] == p.parent.name for part in parts for p, t in zip(part.paths, part.targets, strict=True))
    again = load_splits(tmp_path, None, None, seed=3)
    assert again == splits and load_splits(tmp_path, None, None, seed=4) != splits


def test_with_test_only_validation_is_split_off(tmp_path):
    train, test = folder_of(tmp_path / "x", a=20, b=20), folder_of(tmp_path / "y", a=3, b=4)
    splits = load_splits(train, None, test, seed=0)
    assert sizes(splits) == (34, 6, 7)


@pytest.mark.parametrize("name", ["valid", "validation", "val"])
def test_train_may_hold_the_three_folders(tmp_path, name):
    for part, count in (("train", 5), (name, 2), ("test", 3)):
        folder_of(tmp_path / part, a=count, b=count)
    (tmp_path / "manifest.json").write_text("{}")
    splits = load_splits(tmp_path, None, None, seed=0)
    assert sizes(splits) == (10, 4, 6)


def test_a_class_folder_named_test_is_a_class_where_there_is_no_train(tmp_path):
    assert load_splits(folder_of(tmp_path, test=9, other=9), None, None, seed=0).train.labels == ["other", "test"]


def test_damaged_pictures_are_named_counted_and_left_out(tmp_path, capsys):
    folder_of(tmp_path, a=10, b=10)
    (tmp_path / "a" / "3.png").write_bytes((tmp_path / "a" / "3.png").read_bytes()[:30])
    (tmp_path / "b" / "page.jpg").write_text("<html>")
    splits = load_splits(tmp_path, None, None, seed=0)
    errors = capsys.readouterr().err
    assert sum(map(len, (splits.train, splits.validation, splits.test))) == 19
    assert str(tmp_path / "a" / "3.png") in errors and "page.jpg: not a JPEG" in errors
    assert f"skipped 2 of 21 pictures in {tmp_path}" in errors
    with pytest.raises(Mistake, match=r"3\.png.*2 such.*--strict"):
        load_splits(tmp_path, None, None, seed=0, strict=True)


def test_what_cannot_be_trained_on_is_refused_by_name(tmp_path):
    good = folder_of(tmp_path / "good", a=5, b=5)
    refused("--train .*nowhere is not a folder", tmp_path / "nowhere")
    refused("--validation .*nowhere is not a folder", good, tmp_path / "nowhere")
    refused("--test .*has the class c,", good, None, folder_of(tmp_path / "t", a=2, c=2))
    refused("hollow/b is an empty class", folder_of(tmp_path / "hollow", a=5, b=0))
    refused("one class only, a", folder_of(tmp_path / "single", a=5))
    refused("has no class folders", good / "a")
    refused("class b has 1 picture", folder_of(tmp_path / "few", a=5, b=1))
    broken = folder_of(tmp_path / "broken", a=5, b=1)
    (broken / "b" / "0.png").write_text("x")
    refused("broken/b has no readable picture", broken)


def test_without_verify_only_the_header_is_judged(tmp_path, capsys):
    folder_of(tmp_path, a=10, b=10)
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a" / "cut.jpg")
    (tmp_path / "a" / "cut.jpg").write_bytes((tmp_path / "a" / "cut.jpg").read_bytes()[:-300])
    (tmp_path / "b" / "page.jpg").write_text("<html>")
    assert sum(sizes(load_splits(tmp_path, None, None, seed=0, verify=False))) == 21
    errors = capsys.readouterr().err
    assert "page.jpg: not a JPEG" in errors and "cut.jpg" not in errors
    assert sum(sizes(load_splits(tmp_path, None, None, seed=0, verify=True))) == 20
    assert "cut.jpg: damaged picture" in capsys.readouterr().err


def test_labels_txt_gives_the_order_of_the_classes(tmp_path):
    folder_of(tmp_path / "train", a=9, b=9, c=9)
    test = folder_of(tmp_path / "test", a=1, b=2, c=3)
    (tmp_path / "train" / "labels.txt").write_bytes(b"\xef\xbb\xbfc\r\na\r\nb\r\n\r\n")
    splits = load_splits(tmp_path / "train", None, test, seed=0)
    assert splits.train.labels == splits.test.labels == ["c", "a", "b"]
    assert splits.test.targets == [0, 0, 0, 1, 2, 2]
    # Beside the three folders it counts as well.
    (tmp_path / "train" / "labels.txt").rename(tmp_path / "labels.txt")
    assert load_splits(tmp_path, None, None, seed=0).train.labels == ["c", "a", "b"]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (b"a\nb\n", r"labels\.txt lacks a line for the class folder c of"),
        (b"a\n\ndog\nb\nc\n", r"labels\.txt, line 3: .* has no class folder dog"),
        (b"a\nb\na\nc\n", r"labels\.txt, line 3: a is already in line 1"),
        (b"a\nb\nc\xff\n", r"labels\.txt is not UTF-8"),
    ],
)
def test_labels_that_disagree_with_the_folders_are_refused_by_line(tmp_path, text, match):
    folder_of(tmp_path, a=5, b=5, c=5)
    (tmp_path / "labels.txt").write_bytes(text)
    refused(match, tmp_path)


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_class_without_a_picture_to_evaluate_on_is_named(tmp_path, part, capsys):
    train = folder_of(tmp_path / "train", a=9, b=9, c=9)
    lacking = {part: folder_of(tmp_path / part, a=2, c=2)}
    splits = load_splits(train, lacking.get("validation"), lacking.get("test"), seed=0)
    assert getattr(splits, part).targets == [0, 0, 2, 2]
    assert f"1 of 3 classes have no picture in {part}, such as b" in capsys.readouterr().err
    refused(f"no picture in {part}, such as b", train, lacking.get("validation"), lacking.get("test"), strict=True)


def test_pictures_that_are_trained_and_evaluated_on_are_named_and_counted(tmp_path, capsys):
    train = folder_of(tmp_path / "train", a=9, b=9)
    test = folder_of(tmp_path / "test", a=3, b=3)
    load_splits(train, None, test, seed=0)
    assert capsys.readouterr().err == ""
    copies = {tmp_path / "test" / "a" / "copy.png": train / "a" / "4.png", test / "b" / "0.png": train / "b" / "5.png"}
    for copy, original in copies.items():
        copy.write_bytes(original.read_bytes())
    load_splits(train, folder_of(tmp_path / "validation", a=2, b=2), test, seed=0)
    (line,) = capsys.readouterr().err.splitlines()
    assert "2 of 7 pictures in test are also trained on" in line
    assert f"{test}/a/copy.png, which equals {train}/a/4.png" in line


@pytest.mark.parametrize("verify", [True, False])
def test_unreadable_files_are_skipped_and_unreadable_folders_refused(verify, capsys):
    # Not tmp_path, which only its owner may enter.
    with tempfile.TemporaryDirectory() as root:
        os.chmod(root, 0o755)
        folder = folder_of(Path(root) / "data", a=9, b=9)
        (folder / "a" / "0.png").chmod(0)
        with ordinary_user():
            assert sum(sizes(load_splits(folder, None, None, seed=0, verify=verify))) == 17
        assert "a/0.png: cannot be read: Permission denied" in capsys.readouterr().err
        (folder / "b").chmod(0)
        with ordinary_user():
            refused("data/b cannot be read: Permission denied", folder, verify=verify)
        folder.chmod(0)
        with ordinary_user():
            refused("data cannot be read: Permission denied", folder, verify=verify)
        folder.chmod(0o755)


def test_links_are_followed_once(tmp_path):
    elsewhere = folder_of(tmp_path / "elsewhere", c=6, deeper=3)
    folder = folder_of(tmp_path / "data", a=6, b=6)
    (folder / "c").symlink_to(elsewhere / "c")
    (folder / "a" / "more").symlink_to(elsewhere / "deeper")
    assert sum(sizes(load_splits(folder, None, None, seed=0))) == 21
    (folder / "a" / "loop").symlink_to(folder / "a")
    refused("data/a/loop is a link to .*data/a, whose pictures count already", folder)


def test_links_to_nowhere_are_named(tmp_path, capsys):
    folder = folder_of(tmp_path, a=6, b=6)
    (folder / "c").symlink_to(folder / "missing")
    (folder / "a" / "x.png").symlink_to(folder / "missing.png")
    (folder / "b" / "y.png").symlink_to(folder / "b" / "y.png")
    assert sum(sizes(load_splits(folder, None, None, seed=0))) == 12
    errors = capsys.readouterr().err
    assert "ignored 1 entries" in errors and "such as c" in errors
    assert "x.png: cannot be read: No such file" in errors
    assert "y.png: cannot be read: Too many levels of symbolic links" in errors


def test_a_file_where_a_class_folder_should_be_is_named(tmp_path, capsys):
    train, test = folder_of(tmp_path / "train", a=6, b=6), folder_of(tmp_path / "test", a=2)
    (train / "stray.jpg").write_bytes(png())
    load_splits(train, None, None, seed=0)
    assert "no class folders, such as stray.jpg" in capsys.readouterr().err
    (test / "b").write_text("a zip, perhaps")
    refused("test/b is a file; expected the folder of the class b", train, None, test)


def test_what_is_neither_file_nor_picture_is_not_waited_for(tmp_path, capsys):
    folder = folder_of(tmp_path, a=6, b=6)
    os.mkfifo(folder / "a" / "pipe.jpg")
    (folder / "b" / ".hidden.jpg").write_bytes(png())
    (folder / "b" / ".checkpoints").mkdir()
    (folder / "b" / ".checkpoints" / "copy.jpg").write_bytes(png())
    assert sum(sizes(load_splits(folder, None, None, seed=0))) == 12
    assert "pipe.jpg: is not a file" in capsys.readouterr().err


def test_names_that_are_not_utf_8_are_read_and_refused_as_labels(tmp_path):
    folder = folder_of(tmp_path, a=6, b=6)
    Path(os.fsdecode(os.fsencode(folder / "a") + b"/caf\xe9.png")).write_bytes(png())
    assert sum(sizes(load_splits(folder, None, None, seed=0))) == 13
    (folder / "a").rename(os.fsdecode(os.fsencode(folder) + b"/caf\xe9"))
    refused(r"a class folder whose name is not UTF-8, 'caf\\udce9': rename it", folder)


def test_thousands_of_classes(tmp_path):
    folder = folder_of(tmp_path, **{f"class{number:04}": 3 for number in range(1500)})
    splits = load_splits(folder, None, None, seed=0, verify=False)
    assert sizes(splits) == (1500, 1500, 1500)
    assert splits.test.targets == list(range(1500))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(3, 12), min_size=2, max_size=4), st.integers(0, 9))
def test_splits_are_disjoint_and_whole(tmp_path_factory, counts, seed):
    root = folder_of(tmp_path_factory.mktemp("split"), **{f"c{n}": count for n, count in enumerate(counts)})
    splits = load_splits(root, None, None, seed=seed)
    paths = [path for part in (splits.train, splits.validation, splits.test) for path in part.paths]
    assert len(paths) == len(set(paths)) == sum(counts)
    for part in (splits.train, splits.validation, splits.test):
        assert set(part.targets) == set(range(len(counts)))
