"""The generated pictures: photographs in size and bytes, distinct files, the same ones each time."""

from __future__ import annotations

import numpy as np
from PIL import Image

from bench.pictures import photograph, write_folder


def test_a_picture_is_as_heavy_as_a_photograph():
    picture = photograph(500, 375, np.random.default_rng(0))
    assert 60_000 < len(picture) < 100_000


def test_the_same_seed_gives_the_same_bytes():
    first, second, other = (photograph(64, 48, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first == second != other


def test_no_two_files_are_equal_though_their_pixels_repeat(tmp_path):
    folder = write_folder(tmp_path, {"train": 5, "valid": 2}, classes=2, size=(64, 48), distinct=2)
    paths = sorted(folder.rglob("*.jpg"))
    assert sorted({path.parent.relative_to(folder).as_posix() for path in paths}) == [
        "train/class000",
        "train/class001",
        "valid/class000",
        "valid/class001",
    ]
    assert len({path.read_bytes() for path in paths}) == len(paths) == 7
    by_number = sorted(paths, key=lambda path: path.name)
    pixels = [np.asarray(Image.open(path)).tobytes() for path in by_number]
    assert pixels[0] == pixels[2] != pixels[1]
