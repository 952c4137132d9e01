"""Features: what the head sees, whoever computed them, when, and in how many processes."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from classifier import engine as engines
from classifier.command import Parser
from classifier.data import Pictures, Splits
from classifier.feature_cache import DATABASE
from classifier.features import Extraction, add_extraction_flags, extract, extraction_from
from classifier.fit import predict
from classifier.mistake import Mistake
from classifier.network import build, head_name
from classifier.preprocessing import Preprocessing
from classifier.samples import Augmentation, FeatureSamples, PictureSamples
from PIL import Image

MODEL = Path(__file__).resolve().parents[2] / "model"
SIZE = 32
PREPROCESSING = Preprocessing(SIZE, SIZE)


def scanned(folder: Path) -> Splits:
    """Every class's first 5 pictures to train on, then 2 to validate and 2 to test."""
    labels = sorted(path.name for path in folder.iterdir())
    files = [sorted((folder / label).iterdir())[:9] for label in labels]

    def part(start: int, stop: int) -> Pictures:
        paths = [path for paths in files for path in paths[start:stop]]
        return Pictures(paths, [labels.index(path.parent.name) for path in paths], labels)

    return Splits(part(0, 5), part(5, 7), part(7, 9))


def small(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build("resnet18", 3, SIZE)


def extracted(splits: Splits, network=None, **asked):
    """The features, with as little said as possible."""
    others = {"preprocessing": PREPROCESSING, "augmentation": Augmentation(), "strict": False, "seed": 5}
    others |= {name: asked.pop(name) for name in list(asked) if name in {*others, "ranks", "on_progress"}}
    extraction = Extraction(**{"precision": "fp32", **asked})
    return extract(network or small(), splits, extraction=extraction, **others)


def same(one, other) -> bool:
    """Bit for bit, views and all."""
    return all(
        torch.equal(getattr(one, name)._views, getattr(other, name)._views) for name in ("train", "validation", "test")
    )


@pytest.fixture
def splits(textures) -> Splits:
    return scanned(textures)


def test_features_are_what_the_head_sees_and_leave_the_network_alone(splits):
    network = small().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = extracted(splits, network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    head = network.get_submodule(head_name(network))
    for pictures, samples in (
        (splits.train, found.train),
        (splits.validation, found.validation),
        (splits.test, found.test),
    ):
        expected = predict(network, PictureSamples(pictures, PREPROCESSING, Augmentation(), 0))
        with torch.inference_mode():
            # Half precision keeps 11 bits.
            assert torch.allclose(head(samples.features.float()), expected, rtol=1e-3, atol=2e-3)
        assert samples.targets == pictures.targets
    assert found.splits == splits
    assert (found.computed, found.from_cache) == (27, 0)
    assert found.pictures_per_second > 0 and found.seconds > 0
    assert found.engine == "fp32, channels_last, BatchNorm folded, fused"


def test_a_warm_cache_gives_the_same_bits_without_computing(splits, tmp_path, monkeypatch):
    cold = extracted(splits, cache=tmp_path, views=3)
    monkeypatch.setattr(engines.Engine, "__init__", lambda *_: pytest.fail("the engine is made for nothing"))
    warm = extracted(splits, cache=tmp_path, views=3)
    assert same(cold, warm)
    assert (cold.computed, cold.from_cache) == (warm.from_cache, warm.computed) == (15 * 3 + 12, 0)
    assert cold.speed["extraction_pictures_per_second"] > 0 and warm.speed["extraction_pictures_per_second"] is None
    given = extracted(splits, cache=tmp_path / "own", given=tmp_path, views=3)
    assert same(cold, given) and given.from_cache == 57


def test_more_views_are_added_to_those_that_are_there(splits, tmp_path):
    one = extracted(splits, cache=tmp_path)
    three = extracted(splits, cache=tmp_path, views=3)
    assert (three.from_cache, three.computed) == (27, 30)
    assert torch.equal(one.train.features, three.train.features)
    assert same(three, extracted(splits, views=3))


def test_views_differ_and_do_not_depend_on_seed_or_name(splits, tmp_path):
    found = extracted(splits, views=3)
    first, second, third = found.train._views.unbind(dim=1)
    assert not torch.equal(first, second) and not torch.equal(second, third)
    copies = []
    for number, path in enumerate(splits.train.paths):
        copies.append(tmp_path / f"{99 - number}{path.suffix}")
        copies[-1].write_bytes(path.read_bytes())
    renamed = Splits(Pictures(copies, splits.train.targets, splits.train.labels), splits.validation, splits.test)
    assert same(found, extracted(renamed, views=3, seed=6))


@pytest.mark.parametrize(
    ("what", "reused"),
    [
        (dict, 27 + 15),
        (lambda: {"network": small(seed=1)}, 0),
        (lambda: {"preprocessing": Preprocessing(SIZE, SIZE + 4)}, 0),
        (lambda: {"precision": "bf16"}, 0),
        # As they are served, they stay the same.
        (lambda: {"augmentation": Augmentation(horizontal_flip=False)}, 27),
    ],
)
def test_only_features_of_the_same_making_are_reused(splits, tmp_path, what, reused):
    extracted(splits, cache=tmp_path, views=2)
    assert extracted(splits, cache=tmp_path, views=2, **what()).from_cache == reused


def test_a_picture_that_is_there_twice_is_computed_once(splits):
    train = splits.train.subset([0, 0, 1, 2, 2])
    found = extracted(Splits(train, splits.validation, splits.validation))
    assert found.computed == 3 + 6
    assert torch.equal(found.train.features[0], found.train.features[1])
    assert torch.equal(found.validation.features, found.test.features)


def test_an_epoch_sees_one_view_of_each_picture_drawn_from_seed_and_epoch():
    views = torch.arange(40 * 3).reshape(40, 3, 1).half()
    samples = FeatureSamples(views, [0] * 40, seed=3)

    def epoch(number: int) -> list[int]:
        return torch.cat([inputs for inputs, _ in samples.shuffled(8, number)]).flatten().int().tolist()

    assert epoch(1) == epoch(1) != epoch(2)
    assert sorted(value // 3 for value in epoch(1)) == list(range(40))
    assert {value % 3 for value in epoch(1)} == {0, 1, 2}
    assert torch.cat([inputs for inputs, _ in samples.in_order(7)]).equal(views[:, 0].float())
    assert next(samples.shuffled(8, 1))[0].dtype == torch.float32


def damage(path: Path, tmp_path: Path) -> Path:
    broken = tmp_path / path.name
    broken.write_bytes(path.read_bytes()[:100])
    return broken


def with_damage(splits: Splits, tmp_path: Path) -> Splits:
    """A truncated picture in place of the third, and in place of the fourth no file."""
    paths = list(splits.train.paths)
    paths[2], paths[3] = damage(paths[2], tmp_path), tmp_path / "missing.png"
    return Splits(Pictures(paths, splits.train.targets, splits.train.labels), splits.validation, splits.test)


def test_damaged_pictures_are_named_and_left_out(splits, tmp_path, capsys):
    found = extracted(with_damage(splits, tmp_path), cache=tmp_path / "cache", views=2)
    expected = splits.train.subset([index for index in range(15) if index not in (2, 3)])
    assert found.splits.train == expected and found.train.targets == expected.targets
    assert same(found, extracted(Splits(expected, splits.validation, splits.test), views=2))
    errors = capsys.readouterr().err
    assert "missing.png: cannot be read" in errors and splits.train.paths[2].name in errors
    assert "skipped 2 of 27 pictures" in errors
    # Nothing of them was kept: a repaired file has another name in the cache anyway.
    assert extracted(with_damage(splits, tmp_path), cache=tmp_path / "cache", views=2).splits.train == expected


def test_damaged_pictures_are_refused_where_that_is_asked_for(splits, tmp_path):
    with pytest.raises(Mistake, match=r"(?s)\(2 such of 27, refused by --strict\)"):
        extracted(with_damage(splits, tmp_path), strict=True)


def test_a_class_without_a_readable_picture_is_a_mistake(splits, tmp_path):
    paths = [damage(path, tmp_path) if path.parent.name == "vertical" else path for path in splits.validation.paths]
    broken = Pictures(paths, splits.validation.targets, splits.validation.labels)
    with pytest.raises(Mistake, match="class vertical has no readable picture left to validate on"):
        extracted(Splits(splits.train, broken, splits.test))


@pytest.mark.parametrize("value", [float("nan"), 1e6])
def test_features_that_half_precision_cannot_hold_are_a_mistake(splits, value):
    network = small()
    network.layer4[1].bn2.bias.data[7] = value
    with pytest.raises(Mistake, match="no finite numbers in half precision"):
        extracted(splits, network)


def test_progress_is_counted_to_the_end(splits, tmp_path):
    seen = []
    extracted(splits, cache=tmp_path, on_progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, 27) and seen[-1] == (27, 27) and seen == sorted(seen)
    seen.clear()
    extracted(splits, cache=tmp_path, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(27, 27)]


def flags(*arguments: str, environment: dict[str, str] | None = None) -> Extraction:
    parser = Parser("a test")
    add_extraction_flags(parser, environment or {})
    return extraction_from(parser.parse(list(arguments)))


def test_flags():
    assert flags() == Extraction(cache=Path("build/features"))
    asked = flags(
        "--views", "4", "--feature-cache", "a", "--feature-cache-gb", "0.5", "--features", "b", "--compile", "true"
    )
    assert asked == Extraction(4, Path("a"), 0.5, Path("b"), "auto", True)
    assert flags("--precision", "bf16", "--compile", "FALSE").compile is False
    for wrong in (("--views", "0"), ("--compile", "maybe"), ("--precision", "int8"), ("--feature-cache-gb", "0")):
        with pytest.raises(Mistake, match=wrong[0]):
            flags(*wrong)


def test_flags_of_a_sagemaker_job():
    environment = {"SM_MODEL_DIR": "/opt/ml/model", "SM_CHANNEL_FEATURES": "/opt/ml/input/data/features"}
    assert flags(environment=environment).given == Path("/opt/ml/input/data/features")
    hosts = {"SM_HOSTS": '["algo-2", "algo-1"]'}
    folders = [
        flags(environment=environment | own).cache
        for own in ({}, hosts | {"SM_CURRENT_HOST": "algo-1"}, hosts | {"SM_CURRENT_HOST": "algo-2"})
    ]
    # What every host keeps goes to one place in S3.
    assert folders == [Path("/opt/ml/checkpoints/features")] * 2 + [Path("/opt/ml/checkpoints/features/algo-2")]


# Code of a process that extracts the features of sys.argv[3]'s pictures with the cache sys.argv[4] into sys.argv[5].
EXTRACT = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
import torch
from classifier.data import load_splits
from test_features import extracted
found = extracted(load_splits(Path(sys.argv[3]), None, None, seed=0), cache=Path(sys.argv[4]))
rows = [samples.features for samples in (found.train, found.validation, found.test)]
torch.save([torch.cat(rows), found.computed, found.from_cache], sys.argv[5])
"""


def rows_in(cache: Path) -> int:
    if not (cache / DATABASE).exists():
        return 0
    # Not opened read-only: what a kill left in the journal can only be rolled back by one who may write.
    with contextlib.closing(sqlite3.connect(f"file:{cache / DATABASE}?mode=rw", uri=True, timeout=60)) as connection:
        try:
            return connection.execute("SELECT count(*) FROM features").fetchone()[0]
        except sqlite3.OperationalError:  # Its tables are not made yet.
            return 0


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_where_it_was(tmp_path):
    rng = np.random.default_rng(0)
    for label in "abc":
        (tmp_path / "many" / label).mkdir(parents=True)
        for number in range(400):
            noise = Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8))
            noise.save(tmp_path / "many" / label / f"{number}.png")

    def command(cache: str, output: str) -> list:
        places = (MODEL, Path(__file__).parent, tmp_path / "many", tmp_path / cache, tmp_path / output)
        return [sys.executable, "-c", EXTRACT, *map(str, places)]

    kept = [0]
    for _ in range(3):
        process = subprocess.Popen(command("cache", "killed"), start_new_session=True, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while rows_in(tmp_path / "cache") < kept[-1] + 50:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kept.append(rows_in(tmp_path / "cache"))
    assert kept == sorted(set(kept)) and not (tmp_path / "killed").exists()
    for arguments in (("cache", "resumed"), ("fresh", "uninterrupted")):
        subprocess.run(command(*arguments), check=True, stdout=subprocess.DEVNULL)
    (rows, computed, cached), (expected, *_) = (torch.load(tmp_path / name) for name in ("resumed", "uninterrupted"))
    assert cached >= kept[-1] and computed == 1200 - cached
    assert torch.equal(rows, expected)
    assert not (tmp_path / "cache" / f"{DATABASE}.damaged").exists()
