"""A disk that fills up, wherever it does: one line that says so, and nothing that looks complete and is not."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from classifier.network import build

MODEL = Path(__file__).resolve().parents[2] / "model"
MEGABYTE = 1_000_000

pytestmark = pytest.mark.slow


@pytest.fixture
def train(tmp_path, textures) -> Callable:
    """train(*flags, limit=bytes): run train.py in tmp_path, no file of it larger than `limit`."""
    # A network of 1.4 MB: a model file is as large, the archive holds two, a checkpoint of the whole network four.
    torch.save(build("shufflenet_v2_x0_5", 3, 32).state_dict(), tmp_path / "weights.pth")
    command = [sys.executable, MODEL / "train.py", "--train", textures, "--weights", "weights.pth", "--epochs", "1"]
    command += ["--backbone", "shufflenet_v2_x0_5", "--image-size", "32", "--archive", "release/model.tar.gz"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SM_")}

    def run(*flags: str, limit: int = resource.RLIM_INFINITY) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*command, *flags],
            cwd=tmp_path,
            env=environment | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=600,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        )

    return run


def partial_files(folder: Path) -> list[Path]:
    return list(folder.rglob("*.partial"))


@pytest.mark.parametrize(
    ("flags", "limit", "named"),
    [
        (["--no-freeze-backbone"], 4 * MEGABYTE, "build/checkpoints/checkpoint.pt"),
        ([], 1 * MEGABYTE, "build/model/model.safetensors"),
        ([], 2 * MEGABYTE, "release/model.tar.gz"),
    ],
)
def test_what_could_not_be_written_is_named_and_nothing_looks_complete(tmp_path, train, flags, limit, named):
    done = train(*flags, limit=limit)
    assert done.returncode == 2
    assert done.stderr == f"train.py: {named}: File too large: make room, or write elsewhere (see --help)\n"
    assert not (tmp_path / "release" / "manifest.json").exists() and partial_files(tmp_path) == []
    assert not (tmp_path / named).exists()


def test_with_room_again_the_same_command_completes(tmp_path, train):
    release = tmp_path / "release"
    release.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", release]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a small disk needs the right to mount one")
    try:
        full = train()
        assert full.returncode == 2
        assert full.stderr.startswith("train.py: release/model.tar.gz: No space left on device: make room")
        assert full.stderr.count("\n") == 1 and list(release.iterdir()) == []
        subprocess.run(["mount", "-o", "remount,size=20m", release], check=True)
        assert train().returncode == 0
        assert {path.name for path in release.iterdir()} == {"manifest.json", "model.tar.gz"}
    finally:
        subprocess.run(["umount", release], check=True)
