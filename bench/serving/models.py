"""One network, packed for every server: trained and packed by train.py, so that what is measured is what users get."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import torch
import torchvision
from classifier.weights import read_safetensors
from torch.utils.flop_counter import FlopCounterMode

from bench import MODEL
from bench.pictures import write_folder
from bench.serving.servers import SCRIPTS


def pack(folder: Path, backbone: str, image_size: int, classes: int, int8: bool = False) -> Path:
    """model.tar.gz of a backbone with random weights, and a head that has seen each class a few times.

    Speed depends on neither. Raises CalledProcessError where train.py fails.
    """
    folder.mkdir()
    pictures = write_folder(folder / "pictures", {"train": 8 * classes}, classes, (64, 48), distinct=16)
    weights = folder / "weights.pt"
    torch.save(torchvision.models.get_model(backbone).state_dict(), weights)
    archive = folder / "model.tar.gz"
    command = [sys.executable, MODEL / "train.py", "--train", pictures, "--weights", weights, "--epochs", 1]
    command += ["--backbone", backbone, "--image-size", image_size, "--archive", archive]
    command += ["--feature-cache", folder / "features", "--checkpoint-dir", folder / "checkpoints"]
    command += ["--model-dir", folder / "model", "--output-data-dir", folder / "output"]
    if int8:
        command += ["--int8", "--max-accuracy-drop", 100]
    subprocess.run(list(map(str, command)), stdout=subprocess.DEVNULL, check=True)
    return archive


def for_toolkit(base: Path, target: Path) -> Path:
    """What serves of the same archive, for the model servers in Java.

    They take its manifest.json for one of theirs; the weights of record TorchServe would compress at each start.
    """
    ignored = shutil.ignore_patterns("manifest.json", "model.safetensors")
    shutil.copytree(base, target, copy_function=shutil.copyfile, ignore=ignored)
    shutil.copy(SCRIPTS / "openvino_inference.py", target / "model" / "code")
    return target


def for_reference(base: Path, target: Path) -> Path:
    """The same weights as a state dict, with the reference's script."""
    folder = target / "model"
    (folder / "code").mkdir(parents=True)
    shutil.copy(SCRIPTS / "reference.py", folder / "code" / "inference.py")
    description = json.loads((base / "model" / "model.json").read_text())
    network = {name: description[name] for name in ("backbone", "image_size")}
    (folder / "network.json").write_text(json.dumps({**network, "classes": len(description["labels"])}))
    # Our head is a sequence of one layer, torchvision's a layer.
    state = read_safetensors(base / "model" / "model.safetensors")
    torch.save({name.replace("fc.0.", "fc."): value for name, value in state.items()}, folder / "model.pth")
    return target


def gflop(backbone: str, image_size: int) -> float:
    """Of one picture's forward pass."""
    network = torchvision.models.get_model(backbone).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, image_size, image_size))
    return counter.get_total_flops() / 1e9
