"""A checkpoint is loaded whole and by its own training, or not at all."""

from __future__ import annotations

import pytest
import torch
from classifier.checkpoint import Checkpoint

STATE = {"module": {"weight": torch.arange(6.0).reshape(2, 3)}, "history": [{"epoch": 1, "train_loss": 0.1}]}


def test_what_was_saved_is_loaded_until_it_is_removed(tmp_path, capsys):
    checkpoint = Checkpoint(tmp_path / "not" / "there", "a")
    assert checkpoint.load() is None  # The first start finds an empty folder, or none.
    checkpoint.save({"history": []})
    checkpoint.save(STATE)
    loaded = Checkpoint(tmp_path / "not" / "there", "a").load()
    assert loaded["history"] == STATE["history"]
    assert torch.equal(loaded["module"]["weight"], STATE["module"]["weight"])
    checkpoint.remove()
    checkpoint.remove()
    assert checkpoint.load() is None and capsys.readouterr().err == ""
    assert list(checkpoint.path.parent.iterdir()) == []


def test_another_trainings_checkpoint_is_left_alone_with_a_word(tmp_path, capsys):
    Checkpoint(tmp_path, "a").save(STATE)
    assert Checkpoint(tmp_path, "b").load() is None
    assert "checkpoint.pt is of another training" in capsys.readouterr().err
    assert Checkpoint(tmp_path, "a").load() is not None


@pytest.mark.parametrize("damage", ["empty", "short", "cut", "changed", "foreign"])
def test_a_damaged_checkpoint_is_left_alone_with_a_word(tmp_path, capsys, damage):
    checkpoint = Checkpoint(tmp_path, "a")
    checkpoint.save(STATE)
    data = checkpoint.path.read_bytes()
    middle = len(data) // 2
    checkpoint.path.write_bytes(
        {
            "empty": b"",
            "short": data[:40],
            "cut": data[:-1],
            "changed": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
            "foreign": b"a file of something else" * 100,
        }[damage]
    )
    assert checkpoint.load() is None
    assert "checkpoint.pt is damaged: starting without it" in capsys.readouterr().err


def test_a_failed_save_leaves_the_last_one(tmp_path):
    checkpoint = Checkpoint(tmp_path, "a")
    checkpoint.save(STATE)
    with pytest.raises(Exception, match="pickle"):
        checkpoint.save({"module": lambda: None})
    assert checkpoint.load()["history"] == STATE["history"]
    assert list(tmp_path.iterdir()) == [checkpoint.path]
