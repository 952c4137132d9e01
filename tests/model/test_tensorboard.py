"""The event files, as TensorBoard's own reader sees them."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from classifier.fit import Epoch
from classifier.tensorboard import writer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def an_epoch(number: int, shift: float = 0.0) -> Epoch:
    return Epoch(number, 2 / number + shift, 3 / number + shift, 1 - 1 / (number + 1))


def metrics_of(epochs: list[Epoch]) -> dict:
    return {
        "epochs": len(epochs),
        "history": [asdict(epoch) for epoch in epochs],
        "test_accuracy": 0.75,
        "test_loss": 0.5,
        "recipe": {"learning_rate": 0.001, "batch_size": 8, "bf16": False},
    }


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder)).Reload()
    return {
        tag: [(event.step, pytest.approx(event.value)) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def expected(epochs: list[Epoch]) -> dict[str, list[tuple[int, float]]]:
    return {
        "loss/train": [(epoch.epoch, epoch.train_loss) for epoch in epochs],
        "loss/validation": [(epoch.epoch, epoch.validation_loss) for epoch in epochs],
        "accuracy/validation": [(epoch.epoch, epoch.validation_accuracy) for epoch in epochs],
    }


def test_every_epoch_and_the_test_figures_are_read_back(tmp_path):
    epochs = [an_epoch(number) for number in (1, 2, 3)]
    with writer(tmp_path) as events:
        for epoch in epochs:
            events.epoch(epoch)
        events.summary(metrics_of(epochs))
    assert read(tmp_path) == expected(epochs) | {"accuracy/test": [(3, 0.75)], "loss/test": [(3, 0.5)]}


def test_the_recipe_is_there_to_compare_runs_by(tmp_path):
    with writer(tmp_path) as events:
        events.epoch(an_epoch(1))
        events.summary(metrics_of([an_epoch(1)]))
    assert any(b"learning_rate" in file.read_bytes() for file in tmp_path.iterdir())


@pytest.mark.parametrize("resumed_at", [1, 2, 3, 4])
def test_a_resumed_run_goes_on_in_the_folder_without_doubled_steps(tmp_path, resumed_at):
    with writer(tmp_path) as events:
        for number in (1, 2, 3):
            events.epoch(an_epoch(number, shift=0.5 if number >= resumed_at else 0))
    epochs = [an_epoch(number) for number in (1, 2, 3, 4, 5)]
    with writer(tmp_path) as events:
        for epoch in epochs[resumed_at - 1 :]:
            events.epoch(epoch)
    assert read(tmp_path) == expected(epochs)


def test_a_run_killed_after_its_last_epoch_adds_only_what_was_missing(tmp_path):
    epochs = [an_epoch(number) for number in (1, 2)]
    for _ in range(2):
        with writer(tmp_path) as events:
            if not list(tmp_path.iterdir()):
                for epoch in epochs:
                    events.epoch(epoch)
            events.summary(metrics_of(epochs))
    assert read(tmp_path) == expected(epochs) | {"accuracy/test": [(2, 0.75)], "loss/test": [(2, 0.5)]}


def test_an_epoch_is_in_the_file_when_the_call_returns(tmp_path):
    with writer(tmp_path) as events:
        for number in (1, 2):
            events.epoch(an_epoch(number))
            # Before anything is closed: this is what a kill would leave.
            assert read(tmp_path) == expected([an_epoch(done) for done in range(1, number + 1)])


def test_nothing_is_written_where_no_epoch_ends(tmp_path):
    with writer(tmp_path / "logs"):
        pass
    assert not (tmp_path / "logs").exists()


def test_without_the_package_a_word_is_said_and_training_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.delattr("torch.utils.tensorboard", raising=False)
    with writer(tmp_path / "logs") as events:
        events.epoch(an_epoch(1))
        events.summary(metrics_of([an_epoch(1)]))
    assert "tensorboard is not installed" in capsys.readouterr().err
    assert not (tmp_path / "logs").exists()


def test_a_folder_that_cannot_be_written_stops_the_logs_and_not_the_training(tmp_path, capsys):
    (tmp_path / "logs").write_text("in the way")
    with writer(tmp_path / "logs") as events:
        for number in (1, 2):
            events.epoch(an_epoch(number))
        events.summary(metrics_of([an_epoch(1), an_epoch(2)]))
    said = capsys.readouterr().err
    assert said.count("no more TensorBoard logs") == 1 and str(tmp_path / "logs") in said
