"""Scanning and splitting folders."""

from __future__ import annotations

from collections import Counter

import pytest
from classifier.data import load_splits
from classifier.mistake import Mistake
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image


def folder_of(root, **counts):
    for label, count in counts.items():
        (root / label).mkdir(parents=True)
        for number in range(count):
            Image.new("L", (2, 2)).save(root / label / f"{number}.png")
    return root


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
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (34, 6, 7)


@pytest.mark.parametrize("name", ["valid", "validation", "val"])
def test_train_may_hold_the_three_folders(tmp_path, name):
    for part, count in (("train", 5), (name, 2), ("test", 3)):
        folder_of(tmp_path / part, a=count, b=count)
    (tmp_path / "manifest.json").write_text("{}")
    splits = load_splits(tmp_path, None, None, seed=0)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (10, 4, 6)


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
    def refused(match, train, validation=None, test=None):
        with pytest.raises(Mistake, match=match) as caught:
            load_splits(train, validation, test, seed=0)
        assert "\n" not in str(caught.value)

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


@given(st.lists(st.integers(3, 12), min_size=2, max_size=4), st.integers(0, 9))
def test_splits_are_disjoint_and_whole(tmp_path_factory, counts, seed):
    root = folder_of(tmp_path_factory.mktemp("split"), **{f"c{n}": count for n, count in enumerate(counts)})
    splits = load_splits(root, None, None, seed=seed)
    paths = [path for part in (splits.train, splits.validation, splits.test) for path in part.paths]
    assert len(paths) == len(set(paths)) == sum(counts)
    for part in (splits.train, splits.validation, splits.test):
        assert set(part.targets) == set(range(len(counts)))
