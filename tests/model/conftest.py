"""Pictures that look like something, and one model trained on them by the real command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

MODEL = Path(__file__).resolve().parents[2] / "model"
sys.path.insert(0, str(MODEL))

TEXTURES = ("chequered", "horizontal", "vertical")


class Trained(NamedTuple):
    """What train.py left: folder (unpacked model), archive, output (metrics.json and plots) and its stdout."""

    folder: Path
    archive: Path
    output: Path
    stdout: str

    @property
    def metrics(self) -> dict:
        return json.loads((self.output / "metrics.json").read_text())


def texture(name: str, rng: np.random.Generator) -> Image.Image:
    """Stripes or squares of random colour, scale and phase: the colour says nothing about the class."""
    width, height = rng.integers(40, 80, 2)
    y, x = np.mgrid[0:height, 0:width]
    frequency, phase = rng.uniform(0.35, 0.6), rng.uniform(0, 6)
    across, down = np.sin(frequency * x + phase), np.sin(frequency * y + phase)
    wave = {"chequered": across * down, "horizontal": down, "vertical": across}[name]
    values = (wave[..., None] * 0.35 + 0.5) * rng.uniform(0.4, 1, 3) + rng.normal(0, 0.05, (height, width, 3))
    return Image.fromarray((values.clip(0, 1) * 255).astype(np.uint8))


def write_textures(folder: Path, count: int, seed: int) -> Path:
    """Class folders with `count` pictures each."""
    rng = np.random.default_rng(seed)
    for name in TEXTURES:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            texture(name, rng).save(folder / name / f"{number:03}.{'jpg' if number % 2 else 'png'}")
    return folder


@pytest.fixture(scope="session")
def run_command(tmp_path_factory):
    """run_command(script, *arguments, **environment): run an entry point of model/ as a user does, and wait for it.

    In a folder that all share, below which the defaults of flags lie; SM_* variables only where given.
    """
    folder = tmp_path_factory.mktemp("working-directory")

    def run(script: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SM_")}
        # One thread: beside other tests on a few cores, a second one mostly waits for the first.
        inherited["OMP_NUM_THREADS"] = "1"
        command = [sys.executable, MODEL / script, *map(str, arguments)]
        return subprocess.run(
            command, cwd=folder, capture_output=True, text=True, env=inherited | environment, timeout=600
        )

    return run


@pytest.fixture(scope="session")
def textures(tmp_path_factory) -> Path:
    """Three classes of 36 pictures."""
    return write_textures(tmp_path_factory.mktemp("data") / "textures", 36, seed=1)


@pytest.fixture(scope="session")
def other_textures(tmp_path_factory) -> Path:
    """Three classes of 20 pictures that no training sees."""
    return write_textures(tmp_path_factory.mktemp("data") / "others", 20, seed=2)


@pytest.fixture(scope="session")
def trained(tmp_path_factory, run_command, textures, other_textures) -> Trained:
    """A small network trained from scratch with the default recipe."""
    folder = tmp_path_factory.mktemp("trained")
    archive = folder / "release" / "model.tar.gz"
    done = run_command(
        "train.py",
        *("--train", textures, "--test", other_textures, "--weights", "none", "--backbone", "resnet18"),
        *("--image-size", 32, "--epochs", 12, "--no-horizontal-flip"),
        *("--model-dir", folder / "model", "--output-data-dir", folder / "output", "--archive", archive),
    )
    assert done.returncode == 0, done.stderr
    return Trained(folder / "model", archive, folder / "output", done.stdout)


@pytest.fixture(scope="session")
def model_folder(trained, tmp_path_factory) -> Path:
    """The archive, unpacked as a server does."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(trained.archive) as tar:
        tar.extractall(folder, filter="data")
    return folder
