"""train.py as SageMaker's image starts it: in its file layout, with its environment and arguments, on one host and two.

Namespaces stand in for containers: each host has an /opt/ml of its own, all share one loopback network in which
algo-1 and algo-2 are names. Where the kernel gives none to this user, the tests are skipped by name.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from classifier.jobs import METRICS

TRAIN = Path(__file__).resolve().parents[2] / "model" / "train.py"
NAMESPACES = ["unshare", "--map-root-user", "--mount", "--net"]
SECONDS = 300
EPOCHS = 2
# As a job has them: keys and values of its hyperparameters, booleans as the image spells them, the tuner's own last.
ARGUMENTS = [
    *("--backbone", "resnet18", "--batch-size", "8", "--epochs", str(EPOCHS), "--freeze-backbone", "True"),
    *("--hidden", "0", "--image-size", "32", "--learning-rate", "0.001"),
    *("--weights", "/opt/ml/input/data/weights/model.safetensors"),
    *("--_tuning_objective_metric", "validation_loss"),
]


def namespaces_work() -> bool:
    if not all(map(shutil.which, ("unshare", "ip", "mount"))) or "/opt/" in str(Path(sys.executable).resolve()):
        return False
    return (
        subprocess.run(
            [*NAMESPACES, "mount", "--bind", "/etc/hosts", "/etc/hosts"], capture_output=True, check=False
        ).returncode
        == 0
    )


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not namespaces_work(), reason="this user may not make mount and network namespaces"),
]


class Host(NamedTuple):
    """What a host of a job left: ml is its /opt/ml."""

    ml: Path
    status: int
    stdout: str
    stderr: str

    @property
    def metrics(self) -> dict:
        return json.loads((self.ml / "output" / "data" / "metrics.json").read_text())

    def values(self, metric: str) -> list[str]:
        """What the service would read of the job's log."""
        return re.findall(METRICS[metric], self.stdout + self.stderr)


def run_job(folder: Path, channels: dict[str, Path], hosts: tuple[str, ...] = ("algo-1",)) -> list[Host]:
    """Start train.py once on each host, and nothing else, and wait for all. Channels cannot be written to."""
    (folder / "hosts").write_text("127.0.0.1 localhost algo-1 algo-2\n")
    for host in hosts:
        ml = folder / host / "opt" / "ml"
        for name in ("model", "output/data", "checkpoints", *(f"input/data/{channel}" for channel in channels)):
            (ml / name).mkdir(parents=True)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "OMP_NUM_THREADS": "1",
            "SM_MODEL_DIR": "/opt/ml/model",
            "SM_OUTPUT_DATA_DIR": "/opt/ml/output/data",
            "SM_HOSTS": json.dumps(hosts),
            "SM_CURRENT_HOST": host,
            "SM_NETWORK_INTERFACE_NAME": "lo",
            **{f"SM_CHANNEL_{name.upper()}": f"/opt/ml/input/data/{name}" for name in channels},
        }
        mounts = [["mount", "--bind", path, ml / "input" / "data" / name] for name, path in channels.items()]
        mounts += [["mount", "-o", "remount,bind,ro", ml / "input" / "data" / name] for name in channels]
        mounts += [["mount", "--rbind", ml.parent, "/opt"]]
        assignments = [f"{name}={value}" for name, value in environment.items()]
        command = ["env", "-i", *assignments, sys.executable, TRAIN, *ARGUMENTS]
        lines = [shlex.join(map(str, words)) for words in (*mounts, command)]
        (folder / host / "run.sh").write_text(" &&\n".join(lines) + "\n")
    script = (
        'cd "$0" && ip link set lo up && mount --bind hosts /etc/hosts || exit 1\n'
        'for host; do (cd "$host"; unshare --mount sh run.sh >stdout 2>stderr; echo $? >status) & done; wait'
    )
    command = [*NAMESPACES, "--kill-child", "--fork", "--pid", "sh", "-c", script, folder, *hosts]
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()
    return [
        Host(
            folder / host / "opt" / "ml",
            int((folder / host / "status").read_text()),
            *((folder / host / name).read_text() for name in ("stdout", "stderr")),
        )
        for host in hosts
    ]


@pytest.fixture(scope="module")
def channels(textures, trained, tmp_path_factory) -> dict[str, Path]:
    """Twelve pictures a class, and the weights to start from."""
    folder = tmp_path_factory.mktemp("pictures")
    for label in textures.iterdir():
        (folder / label.name).mkdir()
        for picture in sorted(label.iterdir())[:12]:
            shutil.copy(picture, folder / label.name)
    return {"train": folder, "weights": trained.folder}


@pytest.fixture(scope="module")
def alone(channels, tmp_path_factory) -> Host:
    """A job on one host, with an empty checkpoint folder."""
    [host] = run_job(tmp_path_factory.mktemp("alone"), channels)
    assert host.status == 0, host.stderr
    return host


def test_a_job_leaves_its_model_its_figures_and_its_features(alone):
    assert {"manifest.json", "model.json", "model.safetensors"} <= {
        path.name for path in (alone.ml / "model").iterdir()
    }
    assert (alone.ml / "checkpoints" / "features" / "features.db").is_file()
    assert not (alone.ml / "output" / "failure").exists()
    # One value an epoch; the last is the saved model's, which the tuner takes for the job's.
    values = alone.values("validation_loss")
    assert len(values) == EPOCHS + 1
    assert float(values[-1]) == pytest.approx(alone.metrics["validation_loss"], abs=1e-6)
    assert "\r" not in alone.stdout + alone.stderr


def test_a_trial_with_the_features_as_its_channel_extracts_nothing(alone, channels, tmp_path):
    features = alone.ml / "checkpoints" / "features"
    before = {path.name: path.read_bytes() for path in features.iterdir()}
    [trial] = run_job(tmp_path, channels | {"features": features})
    assert trial.status == 0, trial.stderr
    assert trial.metrics["speed"]["features_computed"] == 0
    assert trial.metrics["history"] == alone.metrics["history"]
    assert {path.name: path.read_bytes() for path in features.iterdir()} == before


def test_a_failed_job_says_why(channels, tmp_path):
    (tmp_path / "empty").mkdir()
    [host] = run_job(tmp_path, channels | {"train": tmp_path / "empty"})
    assert host.status == 2
    reason = (host.ml / "output" / "failure").read_text()
    assert "/opt/ml/input/data/train" in reason and len(reason) <= 1024
    assert host.stderr.count("\n") == 1 and not list((host.ml / "model").iterdir())


def test_two_hosts_that_know_their_names_alone_train_what_one_trains(alone, channels, tmp_path):
    leader, other = run_job(tmp_path, channels, ("algo-1", "algo-2"))
    assert (leader.status, other.status) == (0, 0), leader.stderr + other.stderr
    for name in ("validation_loss", "validation_accuracy", "test_loss", "test_accuracy"):
        assert leader.metrics[name] == pytest.approx(alone.metrics[name], abs=1e-5)
    # What two hosts print the service would count twice, and what both wrote it would mix.
    assert len(leader.values("validation_loss")) == EPOCHS + 1 and other.values("validation_loss") == []
    folders = [host.ml / "checkpoints" for host in (leader, other)]
    kept = [{path.relative_to(folder) for path in folder.rglob("*.*")} for folder in folders]
    # The service keeps both hosts' folders in one place.
    assert not kept[0] & kept[1] and Path("features/features.db") in kept[0]
    assert not list((other.ml / "model").iterdir()) and not list((other.ml / "output" / "data").iterdir())
