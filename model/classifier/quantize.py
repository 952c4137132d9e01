"""int8: the exported network in 8 bits, several times as fast where the CPU has VNNI, if it answers nearly as well."""

import logging
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from classifier.metrics import confusion_matrix, per_class
from classifier.mistake import Mistake

# More hardly move the ranges of the activations; fewer may miss a class.
CALIBRATION_PICTURES = 128


class _Batches(CalibrationDataReader):
    def __init__(self, batches: Iterable[torch.Tensor]):
        self._batches = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        pixels = next(self._batches, None)
        return None if pixels is None else {"pixels": pixels.numpy()}


def quantized(path: Path, batches: Iterable[torch.Tensor]) -> bytes:
    """The float32 ONNX network at `path` with 8-bit weights and activations, which keep float32 inputs and outputs.

    The ranges of the activations are those that these float32 [n, 3, S, S] batches show. The same network and batches
    give the same bytes.
    """
    with TemporaryDirectory() as folder, _quiet():
        prepared, result = Path(folder, "prepared.onnx"), Path(folder, "int8.onnx")
        # Shapes by inference alone: the symbolic kind needs SymPy, and adds nothing to convolutions.
        quant_pre_process(path, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            result,
            _Batches(batches),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            # 7 bits of weights: CPUs without VNNI add two products in 16 bits, where those of 8 bits overflow.
            reduce_range=True,
        )
        return result.read_bytes()


@contextmanager
def _quiet():
    """Without the advice that the quantiser logs for whoever calls it by hand."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def check_accuracy(
    model: bytes,
    batches: Iterable[torch.Tensor],
    fp32_logits: torch.Tensor,
    targets: list[int],
    labels: list[str],
    max_drop: float,
) -> dict:
    """What int8 costs, for metrics.json: accuracy in 0..1, its drop in points, and each class's change of recall.

    model: ONNX. batches: float32 [n, 3, S, S], the pictures whose float32 logits and classes are given.
    Raises Mistake where the accuracy is more than `max_drop` points below that of `fp32_logits`.
    """
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    logits = np.concatenate([session.run(["logits"], {"pixels": pixels.numpy()})[0] for pixels in batches])
    before = confusion_matrix(targets, fp32_logits.argmax(dim=1).numpy(), len(labels))
    after = confusion_matrix(targets, logits.argmax(axis=1), len(labels))
    fp32_right, right = int(before.trace()), int(after.trace())
    drop = 100 * (fp32_right - right) / len(targets)
    if drop > max_drop:
        raise Mistake(
            f"--max-accuracy-drop {max_drop:g}: in int8 {right} of {len(targets)} test pictures are right, in float32 "
            f"{fp32_right}, {drop:.2f} points more: pack without --int8, or allow for it"
        )
    recall, fp32_recall = (
        {label: row["recall"] for label, row in per_class(matrix, labels).items()} for matrix in (after, before)
    )
    return {
        "test_accuracy": right / len(targets),
        "accuracy_drop_points": drop,
        # Of a class without test pictures there is nothing to say.
        "recall_change_points": {
            label: None if recall[label] is None else 100 * (recall[label] - fp32_recall[label]) for label in labels
        },
    }
