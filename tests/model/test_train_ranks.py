"""torchrun with two processes trains what one process does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from classifier.network import build
from safetensors.torch import save_file

MODEL = Path(__file__).resolve().parents[2] / "model"
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")

pytestmark = pytest.mark.slow


def train(launcher: tuple, folder: Path, *flags: object) -> tuple[dict, str]:
    """metrics.json and stdout of train.py, run by this Python below `folder`."""
    folder.mkdir()
    command = [sys.executable, *launcher, MODEL / "train.py", *map(str, flags), "--archive", "release/model.tar.gz"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SM_")}
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=600)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, stderr
    return json.loads((folder / "build" / "output" / "metrics.json").read_text()), stdout


def test_all_layers_on_two_processes_give_the_losses_of_one(tmp_path, textures):
    # Without BatchNorm, whose statistics are those of each process's share, and without dropout.
    flags = ("--train", textures, "--weights", "none", "--backbone", "squeezenet1_1", "--image-size", 32)
    flags += ("--epochs", 3, "--precision", "fp32", "--learning-rate", 0.0003)
    one, lines = train((), tmp_path / "one", *flags)
    two, lines_of_two = train(TWO, tmp_path / "two", *flags)
    for alone, shared in zip(one["history"], two["history"], strict=True):
        assert shared == pytest.approx(alone, abs=2e-3)
    assert one["pictures"] == two["pictures"]
    # One process prints, and one writes.
    assert lines_of_two.count("epoch=") == lines.count("epoch=") == 4
    assert (tmp_path / "two" / "release" / "manifest.json").is_file()


def test_a_head_on_two_processes_is_the_head_of_one(tmp_path, textures):
    save_file(build("resnet18", 3, 32).state_dict(), tmp_path / "weights.safetensors")
    flags = ("--train", textures, "--weights", tmp_path / "weights.safetensors", "--backbone", "resnet18")
    flags += ("--image-size", 32, "--epochs", 4, "--views", 2)
    one, _ = train((), tmp_path / "one", *flags)
    two, lines = train(TWO, tmp_path / "two", *flags)
    assert two["history"] == one["history"] and two["confusion_matrix"] == one["confusion_matrix"]
    assert lines.count("epoch=") == 5
    archives = [(tmp_path / name / "release" / "model.tar.gz").read_bytes() for name in ("one", "two")]
    assert archives[0] == archives[1]
