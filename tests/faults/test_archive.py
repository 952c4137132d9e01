"""Archives that are damaged, or made to do harm to whoever hosts them.

What a server unpacks is refused by tests/local/test_hosting.py where its members lead out; here is what lies in it.
"""

import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from local import hosting
from tests.colour_model import ROOT, model_files, pack, picture

pytestmark = [
    pytest.mark.fault,
    pytest.mark.skipif(not hosting.PYTHON.exists(), reason="needs the hosting environment, .venv-hosting"),
]


class Harm:
    """Whoever unpickles it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def harmed(tmp_path) -> Path:
    """The file that is there once a pickle was loaded."""
    path = tmp_path / "harmed"
    pickle.loads(pickle.dumps(Harm(path)))
    assert path.exists(), "the pickle is harmless"
    path.unlink()
    return path


def pickles(path: Path, folder: Path) -> dict[str, bytes]:
    """A pickle, and torch's file around one."""
    torch.save(Harm(path), folder / "saved")
    return {"plain": pickle.dumps(Harm(path)), "torch": (folder / "saved").read_bytes()}


@pytest.mark.parametrize("kind", ["plain", "torch"])
def test_a_pickle_beside_the_network_is_never_loaded(kind, harmed, tmp_path):
    """Under all the names that others' loaders look for, and the archive's own network serves."""
    content = pickles(harmed, tmp_path)[kind]
    names = ("model.pth", "model.pt", "pytorch_model.bin", "code/model.pkl", "state.npy", "model.joblib")
    host = hosting.EndpointHost(
        pack(tmp_path / "model.tar.gz", model_files() | dict.fromkeys(names, content)), tmp_path / "state"
    )
    host.start()
    try:
        assert host.invoke(picture((255, 0, 0)), "image/png")[0] == 200
    finally:
        host.stop()
    assert not harmed.exists()


@pytest.mark.parametrize("kind", ["plain", "torch"])
@pytest.mark.parametrize("name", ["model.onnx", "model.json"])
def test_a_pickle_in_the_networks_place_is_refused_and_not_run(kind, name, harmed, tmp_path):
    files = model_files() | {name: pickles(harmed, tmp_path)[kind]}
    host = hosting.EndpointHost(pack(tmp_path / "model.tar.gz", files), tmp_path / "state")
    with pytest.raises(hosting.HostingError, match=r"model\.tar\.gz: the model server ended"):
        host.start()
    assert not harmed.exists()


def test_a_pickle_in_the_safetensors_place_is_refused_and_not_run(harmed, tmp_path):
    """Where torch serves: AWS's prebuilt image has no ONNX Runtime."""
    content = pickles(harmed, tmp_path)["torch"]
    (tmp_path / "model.json").write_bytes(model_files()["model.json"].replace(b'"colour"', b'"resnet18"'))
    for name in ("model.safetensors", "model.pth", "model.pt", "pytorch_model.bin"):
        (tmp_path / name).write_bytes(content)
    script = "import inference, pathlib, sys; inference.load_torch(pathlib.Path(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], cwd=ROOT / "model", capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "ValueError" in done.stderr.splitlines()[-1] and "model.safetensors" in done.stderr
    assert not harmed.exists()


def test_weights_that_run_code_are_refused_and_not_run(harmed, tmp_path):
    (tmp_path / "weights.pth").write_bytes(pickles(harmed, tmp_path)["torch"])
    data = tmp_path / "data"
    for label in ("red", "blue"):
        (data / label).mkdir(parents=True)
        for number in range(4):
            (data / label / f"{number}.png").write_bytes(picture((255, 0, 0)))
    done = subprocess.run(
        [
            *(sys.executable, ROOT / "model" / "train.py", "--train", data, "--backbone", "resnet18"),
            *("--weights", tmp_path / "weights.pth", "--epochs", "1", "--model-dir", tmp_path / "model"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "weights.pth" in done.stderr.splitlines()[-1]
    assert not harmed.exists()


@pytest.mark.parametrize("kept", [0, 2, 40, 0.5, 0.99, -1])
def test_an_archive_cut_short_is_named(kept, tmp_path):
    whole = pack(tmp_path / "model.tar.gz", model_files())
    size = whole.stat().st_size
    with whole.open("r+b") as file:
        file.truncate(int(kept * size) if isinstance(kept, float) else kept % size)
    refused(whole, tmp_path / "state")


def test_an_archive_with_a_bit_turned_is_named(tmp_path):
    """Wherever it is: gzip's checksum covers all of it."""
    whole = pack(tmp_path / "model.tar.gz", model_files())
    content = whole.read_bytes()
    for place in range(20, len(content), len(content) // 25):
        damaged = bytearray(content)
        damaged[place] ^= 16
        whole.write_bytes(damaged)
        with pytest.raises(hosting.HostingError, match=r"model\.tar\.gz"):
            hosting.unpack(whole, tmp_path / "into")
        shutil.rmtree(tmp_path / "into")


def refused(archive: Path, state: Path) -> None:
    host = hosting.EndpointHost(archive, state)
    with pytest.raises(hosting.HostingError, match=r"cannot unpack .*model\.tar\.gz"):
        host.start()
    assert not list((state / "endpoints").iterdir())
