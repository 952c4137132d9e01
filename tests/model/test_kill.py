"""Killed with -9 at any moment and started again, train.py ends with the bits of a run that was not interrupted."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from classifier.network import build

MODEL = Path(__file__).resolve().parents[2] / "model"
KILLS = 20
TIMES = ("seconds", "speed")
WAYS = {
    "frozen": ("--views", 2, "--hidden", 16, "--epochs", 60, "--patience", 60),
    "full": ("--no-freeze-backbone", "--ema", 0.9, "--mixup", 0.2, "--epochs", 8),
}


class Run(NamedTuple):
    """One training below a folder of its own."""

    folder: Path
    flags: tuple

    def start(self) -> subprocess.Popen:
        places = ("--model-dir", "model", "--output-data-dir", "output", "--archive", "release/model.tar.gz")
        places += ("--checkpoint-dir", "checkpoints", "--feature-cache", "checkpoints/features")
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, MODEL / "train.py", *map(str, (*self.flags, *places))],
                cwd=self.folder,
                env={name: value for name, value in os.environ.items() if not name.startswith("SM_")}
                | {"OMP_NUM_THREADS": "1"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def finish(self) -> float:
        """Run to the end; the seconds that took."""
        began, process = time.monotonic(), self.start()
        try:
            assert process.wait(600) == 0, (self.folder / "log").read_text()
        finally:
            kill(process)
        return time.monotonic() - began

    def results(self) -> tuple[dict, str]:
        """metrics.json without its times, and the archive's hash; the manifests are what the files are."""
        self.check_manifests()
        metrics = json.loads((self.folder / "output" / "metrics.json").read_text())
        archive = (self.folder / "release" / "model.tar.gz").read_bytes()
        return {name: metrics[name] for name in metrics if name not in TIMES}, hashlib.sha256(archive).hexdigest()

    def check_manifests(self) -> None:
        """What a manifest vouches for is there and whole."""
        with suppress(FileNotFoundError):
            inner = json.loads((self.folder / "model" / "manifest.json").read_text())
            for name, digest in inner["files"].items():
                assert hashlib.sha256((self.folder / "model" / name).read_bytes()).hexdigest() == digest
            assert {"model.onnx", "model.safetensors", "model.json"} <= inner["files"].keys()
        with suppress(FileNotFoundError):
            outer = json.loads((self.folder / "release" / "manifest.json").read_text())
            archive = (self.folder / "release" / "model.tar.gz").read_bytes()
            assert outer["archive"] == {"sha256": hashlib.sha256(archive).hexdigest(), "bytes": len(archive)}


def kill(process: subprocess.Popen) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_twenty_kills_change_nothing(tmp_path, textures, way):
    torch.manual_seed(3)
    network, weights = build("shufflenet_v2_x0_5", 3, 32), tmp_path / "weights.pth"
    for _ in range(30):
        network(torch.randn(16, 3, 32, 32))  # Statistics that let something through the layers.
    torch.save(network.state_dict(), weights)
    flags = ("--train", textures, "--weights", weights, "--backbone", "shufflenet_v2_x0_5", "--image-size", 32)
    runs = [Run(tmp_path / f"run-{number}", (*flags, *WAYS[way])) for number in range(-2, KILLS)]
    rng = random.Random(way)
    # Two at a time, as many as a small machine has cores.
    with ThreadPoolExecutor(2) as pool:
        seconds = min(pool.map(Run.finish, runs[:2]))
        expected, again = (run.results() for run in runs[:2])
        assert expected == again

        def killed(run: Run, moment: float) -> None:
            process = run.start()
            try:
                time.sleep(moment)
            finally:
                kill(process)
            run.check_manifests()
            run.finish()
            assert run.results() == expected, f"{run.folder}, killed after {moment:.3f} of {seconds:.3f} s"
            left = {path.name for path in run.folder.rglob("*") if path.is_file()}
            assert "checkpoint.pt" not in left and not [name for name in left if name.endswith(".partial")]

        moments = [seconds * (number + rng.random()) / KILLS for number in range(KILLS)]
        list(pool.map(killed, runs[2:], moments))
    resumed = [run for run in runs[2:] if "going on after epoch" in (run.folder / "log").read_text()]
    assert resumed, "no kill fell between the first checkpoint and the end"
