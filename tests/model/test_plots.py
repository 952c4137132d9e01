"""The PNG plots: written for any class names and any number of classes and epochs."""

from __future__ import annotations

import numpy as np
import pytest
from classifier import plots
from classifier.fit import Epoch
from PIL import Image


@pytest.mark.parametrize("label", [r"\frac{$^_{}$", "caf\udce9", "two\nlines", "x" * 300])
def test_a_confusion_matrix_takes_any_folder_name(tmp_path, label):
    plots.confusion_matrix([[1, 0], [2, 1]], [label, "other"], tmp_path / "matrix.png")
    with Image.open(tmp_path / "matrix.png") as image:
        assert image.format == "PNG" and image.width < 2000


def test_a_large_confusion_matrix_has_room_for_every_name(tmp_path):
    labels = [f"{index:03}.A_rather_long_breed_name" for index in range(133)]
    plots.confusion_matrix(np.eye(133, dtype=int), labels, tmp_path / "matrix.png")
    with Image.open(tmp_path / "matrix.png") as image:
        assert min(image.size) > 133 * 15  # pixels a row, what a line of small print takes


@pytest.mark.parametrize("losses", [[0.5], [900.0, 2.0, *[0.5] * 38], [0.0, 0.0]])
def test_a_training_curve_is_drawn_whatever_the_losses(tmp_path, losses):
    history = [Epoch(number, loss, loss, 0.5) for number, loss in enumerate(losses, start=1)]
    plots.training_curve(history, history[-1], tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as image:
        assert image.format == "PNG"


def test_a_first_epochs_spike_does_not_press_the_rest_flat():
    losses = [900.0, 2.0, *[0.5] * 38]
    assert plots.highest_loss(losses, losses, kept=0.5) < 5
    assert plots.highest_loss(losses, losses, kept=900.0) > 900  # the kept epoch is always seen
