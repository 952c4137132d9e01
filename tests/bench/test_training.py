"""The bench of training at a scale of seconds: that every promise of the README is measured, never how fast."""

from __future__ import annotations

import pytest
import torch
from classifier.task import recipe_from

from bench import ours, rounds, training
from bench.reference import Hyperparameters
from bench.training import Training


@pytest.fixture
def in_process(monkeypatch):
    """Saves the start of a process for each work; one thread, because on tiny pictures a second one only waits."""
    monkeypatch.setattr(rounds, "alone", lambda work, threads=1: work())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_both_sides_train_with_the_same_hyperparameters(tmp_path, tiny, in_process):
    bench = Training(tiny, tmp_path)
    given = Hyperparameters()
    flags = ["--epochs", given.epochs, "--batch-size", given.batch_size, "--learning-rate", given.learning_rate]
    options, task = ours.asked([*bench._flags("fp32"), *flags])
    recipe = recipe_from(options, task, options.learning_rate, options.batch_size)
    assert (recipe.weight_decay, recipe.label_smoothing) == (given.weight_decay, given.label_smoothing)
    assert recipe.patience >= given.epochs
    size = task.preprocessing
    assert (size.image_size, size.resize_size) == (tiny.given.image_size, tiny.given.resize_size)
    assert (recipe.ema, recipe.mixup, recipe.cutmix) == (0, 0, 0)


def test_every_promise_has_a_row(tmp_path, tiny, in_process):
    bench = Training(tiny, tmp_path)
    bench.precisions = ["fp32"]
    rows = [*bench.decoding(), *bench.forward(), *bench.extraction(), *bench.training()]
    judged = [row.measured for row in rows if "(" in row.hold]
    assert len(judged) == len([name for name in training.PROMISED if "fp32" in name])
    assert all(row.verdict in ("held", "fell short") for row in rows if row.hold)
    assert any("1 of 2 trainings measured" in row.measured for row in rows)


@pytest.mark.slow
def test_the_whole_table_in_processes_of_its_own(tmp_path, tiny):
    rows = training.measured(tiny, tmp_path, training.PARTS)
    assert sum(row.verdict != "" for row in rows) >= 9
