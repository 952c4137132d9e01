"""A model archive as small as can be, whose right answer is known: logits are the mean colour times a figure.

The network is a real ONNX graph, and the code that serves it the project's own.
"""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

ROOT = Path(__file__).parents[1]
LABELS = ["red", "green", "blue"]


def colour_network(scale: float = 10.0) -> bytes:
    """logits [N, 3] = scale * the mean of each channel of pixels [N, 3, 16, 16]."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["pixels"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["channels"]),
        helper.make_node("MatMul", ["channels", "weight"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "colour",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", 3, 16, 16])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(np.eye(3, dtype=np.float32) * np.float32(scale), "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def model_files(scale: float = 10.0) -> dict[str, bytes]:
    description = {"backbone": "colour", "labels": LABELS, "image_size": 16, "resize_size": 16}
    description |= {"mean": [0.0] * 3, "std": [1.0] * 3}
    return {
        "model.onnx": colour_network(scale),
        "model.json": json.dumps(description).encode(),
        "code/inference.py": (ROOT / "model" / "inference.py").read_bytes(),
        "code/classifier/__init__.py": b"",
        "code/classifier/preprocessing.py": (ROOT / "model" / "classifier" / "preprocessing.py").read_bytes(),
    }


def pack(path: Path, files: dict[str, bytes], *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for member in members:
            archive.addfile(member)
    return path


def picture(colour: tuple[int, int, int], format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(buffer, format)
    return buffer.getvalue()
