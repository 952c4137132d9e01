"""From the trained network to the files that serve it, checked on real pictures before anybody does."""

import json
import warnings
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from safetensors.torch import save
from torch import nn

from classifier.archive import write_atomically
from classifier.data import Pictures
from classifier.fit import EVALUATION_BATCH_SIZE
from classifier.quantize import CALIBRATION_PICTURES, check_accuracy, quantized
from classifier.task import Task

# Read by every ONNX Runtime since 1.12, and has all that torchvision's classifiers need.
OPSET = 17
LARGEST_DIFFERENCE = 1e-4
CHECKED_PICTURES = 64


class ExportError(RuntimeError):
    """The exported network does not answer as the trained one does."""


def write_model(
    network: nn.Module, task: Task, hidden: int, folder: Path, logits: torch.Tensor, int8_drop: float | None = None
) -> dict | None:
    """Write model.json, model.safetensors and model.onnx of a trained network whose head has `hidden` units.

    logits: the network's of the test pictures. int8_drop: where given, model.onnx is the int8 network, which may answer
    so many points less of the test pictures right; what it costs is returned, as metrics.json has it.

    Raises ExportError where ONNX Runtime answers differently from torch on validation pictures, Mistake where int8
    costs too much, OSError where a file cannot be written.
    """
    # A manifest left by an earlier run must not vouch for what is being written.
    (folder / "manifest.json").unlink(missing_ok=True)
    # The layout in memory that is fastest to train on is not the one that files have.
    network = network.to(memory_format=torch.contiguous_format)
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    write_atomically(folder / "model.safetensors", save(state))
    path = folder / "model.onnx"
    export_onnx(network, task.image_size, path)
    check_onnx(path, network, pixels_of(task, spread(task.splits.validation, CHECKED_PICTURES)))
    cost = None
    if int8_drop is not None:
        test = task.splits.test
        model = quantized(path, pixels_of(task, spread(task.splits.train, CALIBRATION_PICTURES)))
        cost = check_accuracy(model, pixels_of(task, test), logits, test.targets, task.labels, int8_drop)
        write_atomically(path, model)
    description = {
        "backbone": task.backbone,
        "hidden": hidden,
        "labels": task.labels,
        "precision": "fp32" if cost is None else "int8",
        **task.preprocessing.to_json(),
    }
    write_atomically(folder / "model.json", (json.dumps(description, indent=1) + "\n").encode())
    return cost


def spread(pictures: Pictures, count: int) -> Pictures:
    """At most `count` pictures, spread over the classes, whose pictures follow one another."""
    return pictures.subset(range(0, len(pictures), -(-len(pictures) // count)))


def pixels_of(task: Task, pictures: Pictures) -> Iterator[torch.Tensor]:
    """Pictures as they are served, in batches float32 [n, 3, S, S]."""
    return (pixels for pixels, _ in task.samples(pictures).in_order(EVALUATION_BATCH_SIZE))


def export_onnx(network: nn.Module, image_size: int, path: Path) -> None:
    """Write `network` as ONNX: "pixels" float32 [N, 3, image_size, image_size] to "logits" float32 [N, classes].

    The bytes depend on the network alone. torch's tracing exporter is used: on these feed-forward networks it gives the
    same graph as the newer one in a tenth of the time, and without onnxscript, which AWS's training images lack.
    """
    # Two pictures, because from a batch of one the trace may take N for the constant 1.
    example = torch.zeros(2, 3, image_size, image_size)
    graph = BytesIO()
    with warnings.catch_warnings():
        # Of deprecation, and of Python branches on shapes, which the check on real batches covers.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (example,),
            graph,
            input_names=["pixels"],
            output_names=["logits"],
            dynamic_axes={"pixels": {0: "N"}, "logits": {0: "N"}},
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load_from_string(graph.getvalue())
    for node in model.graph.node:
        # Here exporters note the source files of the machine they ran on.
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    onnx.checker.check_model(model)
    write_atomically(path, model.SerializeToString(deterministic=True))


def check_onnx(path: Path, network: nn.Module, batches: Iterable[torch.Tensor]) -> float:
    """The largest difference between ONNX Runtime's logits and torch's on these float32 [n, 3, S, S] batches.

    Raises ExportError above LARGEST_DIFFERENCE, or where there is nothing to compare.
    """
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    largest = None
    with torch.inference_mode():
        for pixels in batches:
            expected = network(pixels).numpy()
            (logits,) = session.run(["logits"], {"pixels": pixels.numpy()})
            # Relative for logits beyond 1: their last digits are not float32's to keep.
            difference = float(np.max(np.abs(logits - expected) / np.maximum(1, np.abs(expected))))
            largest = max(largest or 0.0, difference)
    if largest is None:
        raise ExportError("no picture to check the exported network on")
    if not largest <= LARGEST_DIFFERENCE:
        raise ExportError(f"ONNX Runtime's logits differ from torch's by {largest:.2g}; at most {LARGEST_DIFFERENCE:g}")
    return largest
