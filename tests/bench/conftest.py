"""A scale of measurement that takes seconds."""

from __future__ import annotations

import pytest

from bench.reference import Hyperparameters
from bench.training import Scale


@pytest.fixture(scope="session")
def tiny() -> Scale:
    return Scale(
        rounds=1,
        pictures=8,
        kept=2,
        pictures_for_memory=8,
        large_pictures=1,
        classes=2,
        backbone="resnet18",
        size=(60, 40),
        large_size=(160, 120),
        trials=2,
        digit_epochs=1,
        seeds=2,
        given=Hyperparameters(epochs=2, batch_size=4, image_size=32, resize_size=37),
    )
