"""The report: a page that stands alone, says what metrics.json says, and shows names as they are."""

from __future__ import annotations

import base64
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from classifier.data import Pictures
from classifier.metrics import summary
from classifier.report import classes_to_show, confused_pairs, worst_pictures, write_report
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from tests.html_page import Page


def write_pictures(folder: Path, targets: list[int], labels: list[str], size=(40, 30)) -> Pictures:
    """One JPEG of noise, all files the same bytes, for each target."""
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG", quality=90)
    paths = [folder / f"{index:05}.jpg" for index in range(len(targets))]
    for path in paths:
        path.write_bytes(buffer.getvalue())
    return Pictures(paths, targets, labels)


def metrics_of(pictures: Pictures, logits: torch.Tensor, **more) -> dict:
    """metrics.json as train.py writes it."""
    history = [
        {"epoch": 1, "train_loss": 2.0, "validation_loss": 1.5, "validation_accuracy": 0.5},
        {"epoch": 2, "train_loss": 1.0, "validation_loss": 0.75, "validation_accuracy": 0.8125},
    ]
    figures = summary(logits, pictures.targets, pictures.labels)
    return {
        **figures,
        "validation_loss": 0.75,
        "validation_accuracy": 0.8125,
        "test_loss": 0.25,
        "test_accuracy": figures["accuracy"],
        "epochs": 2,
        "best_epoch": 2,
        "seconds": 754.0,
        "history": history,
        "pictures": {"train": 6680, "validation": 835, "test": len(pictures)},
        "recipe": {"epochs": 2, "batch_size": 64, "learning_rate": 0.001, "patience": 8, "seed": 3},
        **more,
    }


def report(tmp_path: Path, metrics: dict, pictures: Pictures, logits: torch.Tensor) -> Page:
    write_report(tmp_path / "report.html", metrics, pictures, logits)
    return Page((tmp_path / "report.html").read_text())


@pytest.fixture
def small(tmp_path):
    """Three classes of four pictures; three pictures of the second class are taken for the third."""
    targets = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    pictures = write_pictures(tmp_path, targets, ["ape", "bee", "cat"])
    predicted = torch.tensor([0, 0, 0, 0, 2, 2, 2, 1, 2, 2, 2, 2])
    return pictures, torch.nn.functional.one_hot(predicted, 3) * 4.0


def test_says_what_metrics_json_says(tmp_path, small):
    pictures, logits = small
    speed = {"engine": "bf16, folded", "extraction_pictures_per_second": 91.25, "extraction_seconds": 91.5}
    more = {"speed": speed, "cost": {"usd_per_hour": 0.23, "usd": 0.048}, "git_commit": "abc123"}
    more |= {"versions": {"torch": "2.14.1"}, "network": {"backbone": "resnet50"}}
    page = report(tmp_path, metrics_of(pictures, logits, **more), *small)
    text = " ".join(page.text.split())
    for said in (
        "75.0 %",
        "6,680 pictures to train on, 835 to validate, 12 to test",
        "0.250 nats",
        "2 of 2",
        "81.2 %",
        "12 min 34 s",
        "0.0480 USD at 0.23 USD an hour",
        "91.2 pictures/s",
        "bf16, folded",
        "batch size 64 pictures",
        "seed 3",
        "abc123",
        "2.14.1",
        "resnet50",
    ):
        assert said in text, said
    assert ["bee", "cat", "3", "75.0\N{NO-BREAK SPACE}%"] in page.rows  # the only confusion
    assert ["bee", "", "1", "3"] in page.rows  # its row of the matrix
    assert [row[0] for row in page.rows if len(row) == 5] == ["Class", "bee", "cat", "ape"]  # the lowest F1 first


def test_a_run_that_found_every_feature_has_no_extraction_speed(tmp_path, small):
    pictures, logits = small
    speed = {"extraction_pictures_per_second": None, "features_from_cache": 8351}
    page = report(tmp_path, metrics_of(pictures, logits, speed=speed), *small)
    text = " ".join(page.text.split())
    assert "extraction speed \N{EN DASH}" in text and "features from cache 8,351 pictures" in text


def test_needs_nothing_from_elsewhere(tmp_path, small):
    pictures, logits = small
    page = report(tmp_path, metrics_of(pictures, logits), *small)
    source = (tmp_path / "report.html").read_text()
    assert not re.search(r"https?:|//[a-z]|url\(|@import", re.sub(r"base64,[^\"]*", "", source).replace("// ", ""))
    assert not page.all("link") and all("src" not in script for script in page.all("script"))
    assert page.all("img") and all(image["src"].startswith("data:image/jpeg;base64,") for image in page.all("img"))


def test_can_be_read_by_a_screen_reader(tmp_path, small):
    pictures, logits = small
    page = report(tmp_path, metrics_of(pictures, logits), *small)
    assert page.all("html") == [{"lang": "en"}]
    assert all(image["alt"] for image in page.all("img"))
    assert all(header["scope"] in ("row", "col") for header in page.all("th"))
    charts = [svg for svg in page.all("svg") if "chart" in svg.get("class", "")]
    assert len(charts) == 3 and all(chart["role"] == "img" and chart["aria-label"] for chart in charts)


@pytest.mark.parametrize("label", ['<b>"x', "<script>alert(1)</script>", "{{ 7 * 7 }}", "a'b&amp;c", "犬_\udcff"])
def test_names_stand_as_they_are_and_never_become_markup(tmp_path, label):
    pictures = write_pictures(tmp_path, [0, 1], [label, "other"])
    named = tmp_path / '<i onload="x">&.jpg'
    pictures.paths[0].rename(named)
    pictures.paths[0] = named
    logits = torch.tensor([[0.0, 3.0], [0.0, 3.0]])
    ordinary = report(tmp_path, metrics_of(pictures, logits), pictures, logits)
    shown = label.replace("\udcff", "?")
    assert [shown, "other", "1", "100.0\N{NO-BREAK SPACE}%"] in ordinary.rows
    assert '<i onload="x">&.jpg' in ordinary.text
    assert shown in [header.get("title") for header in ordinary.all("th")]
    tags = {tag for tag, _ in ordinary.elements}
    assert "i" not in tags and len(ordinary.all("script")) == 1


def test_worst_pictures_come_first_with_what_was_said_of_them(small):
    pictures, logits = small
    logits = logits.clone()
    logits[6, 2] = 400.0  # so sure a mistake that the probability of the truth is 0
    logits[5, 2] = 300.0
    worst = worst_pictures(pictures, logits)
    assert [picture["file"] for picture in worst[:3]] == ["00006.jpg", "00005.jpg", "00004.jpg"]
    assert (worst[0]["true"], worst[0]["predicted"], worst[0]["right"]) == ("bee", "cat", False)
    assert worst[0]["true_probability"] == pytest.approx(0) and worst[0]["predicted_probability"] == pytest.approx(1)
    assert len(worst) == len(pictures) and worst[-1]["right"]


def test_thumbnails_are_small_jpegs_whatever_the_picture_was(tmp_path):
    for size, expected in (((8, 8), (160, 160)), ((1600, 1200), (160, 120)), ((30, 1200), (4, 160))):
        pictures = write_pictures(tmp_path, [0, 1], ["a", "b"], size)
        data = worst_pictures(pictures, torch.eye(2))[0]["thumbnail"].removeprefix("data:image/jpeg;base64,")
        thumbnail = Image.open(BytesIO(base64.b64decode(data)))
        assert thumbnail.format == "JPEG" and thumbnail.size == expected


def test_a_picture_that_is_gone_leaves_its_place(tmp_path, small):
    pictures, logits = small
    pictures.paths[4].unlink()
    pictures.paths[5].write_bytes(b"no picture any more")
    page = report(tmp_path, metrics_of(pictures, logits), *small)
    assert page.text.count("no longer readable") == 2
    assert len(page.all("img")) == 10


def test_is_no_larger_for_133_classes_and_2000_pictures_than_a_mail_takes(tmp_path):
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(133, (2000,), generator=generator)
    logits = torch.randn(2000, 133, generator=generator) + 3 * torch.nn.functional.one_hot(targets, 133)
    labels = [f"{index:03}.A_rather_long_breed_name_{index}" for index in range(133)]
    pictures = write_pictures(tmp_path, targets.tolist(), labels, (500, 375))
    page = report(tmp_path, metrics_of(pictures, logits), pictures, logits)
    assert (tmp_path / "report.html").stat().st_size < 1_000_000
    assert {label for label in labels if any(row[0] == label for row in page.rows)} == set(labels)
    assert "The 16 most confused of 133 classes" in page.text


def test_a_faultless_run_says_so(tmp_path):
    pictures = write_pictures(tmp_path, [0, 1] * 4, ["a", "b"])
    logits = torch.eye(2).repeat(4, 1) * 9
    page = report(tmp_path, metrics_of(pictures, logits), pictures, logits)
    assert "Every test picture was put into its own class" in page.text and "Most frequent" not in page.text


def test_a_single_epoch_and_a_class_without_test_pictures_make_a_page(tmp_path):
    pictures = write_pictures(tmp_path, [0, 1, 1], ["a", "b", "absent"])
    logits = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 0, 0]])
    metrics = metrics_of(pictures, logits) | {"epochs": 1, "best_epoch": 1}
    metrics["history"] = metrics["history"][:1]
    page = report(tmp_path, metrics, pictures, logits)
    assert ["absent", "0", *3 * ["\N{EN DASH}"]] in page.rows


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path, small, monkeypatch):
    pictures, logits = small
    (tmp_path / "report.html").write_text("old")
    incomplete = metrics_of(pictures, logits)
    del incomplete["calibration"]
    with pytest.raises(KeyError):
        write_report(tmp_path / "report.html", incomplete, *small)
    assert (tmp_path / "report.html").read_text() == "old"


@given(st.integers(2, 40).flatmap(lambda n: arrays(np.int64, (n, n), elements=st.integers(0, 3))))
@settings(max_examples=60, deadline=None)
def test_the_most_confused_classes_are_shown(matrix):
    pairs, shown = confused_pairs(matrix), classes_to_show(matrix)
    assert sum(count for *_, count in pairs) == matrix.sum() - matrix.trace()
    assert [count for *_, count in pairs] == sorted((count for *_, count in pairs), reverse=True)
    assert len(set(shown)) == len(shown) <= 16
    if len(matrix) <= 16:
        assert shown == list(range(len(matrix)))
    elif pairs:
        between = np.triu(matrix + matrix.T, 1)
        assert between[np.ix_(sorted(shown), sorted(shown))].max() == between.max()
