"""Figures of a trained classifier: accuracy, confusion matrix, per-class precision and recall, and calibration."""

from collections.abc import Sequence

import numpy as np
import torch

CALIBRATION_BINS = 15
TOP_K = 5


def summary(logits: torch.Tensor, targets: Sequence[int], labels: Sequence[str]) -> dict:
    """What metrics.json says of logits float32 [N, classes] with their true classes and the classes' names.

    accuracy and top_5_accuracy are shares in 0..1 of the N pictures; the latter is None up to five classes, where it
    says nothing.
    """
    targets = np.asarray(targets)
    predicted = logits.argmax(dim=1).numpy()
    matrix = confusion_matrix(targets, predicted, len(labels))
    right = int(matrix.trace())
    return {
        "accuracy": right / len(targets),
        "accuracy_interval_95": wilson_interval(right, len(targets)),
        "top_5_accuracy": _top_k_accuracy(logits, targets, TOP_K) if len(labels) > TOP_K else None,
        "per_class": per_class(matrix, labels),
        "confusion_matrix": {"labels": list(labels), "rows_true_columns_predicted": matrix.tolist()},
        "calibration": calibration(probabilities(logits).max(axis=1), predicted == targets),
    }


def probabilities(logits: torch.Tensor) -> np.ndarray:
    """float64 [N, classes], each row summing to 1."""
    return torch.softmax(logits.double(), dim=1).numpy()


def confusion_matrix(targets: Sequence[int], predicted: Sequence[int], classes: int) -> np.ndarray:
    """int64 [classes, classes]: row is the true class, column the predicted one."""
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (np.asarray(targets), np.asarray(predicted)), 1)
    return matrix


def per_class(matrix: np.ndarray, labels: Sequence[str]) -> dict[str, dict]:
    """Of each label: its number of pictures (support), precision, recall and F1 in 0..1; None where nothing divides."""
    right, predicted, true = matrix.diagonal(), matrix.sum(axis=0), matrix.sum(axis=1)
    return {
        label: {
            "pictures": int(true[index]),
            "precision": _share(right[index], predicted[index]),
            "recall": _share(right[index], true[index]),
            "f1": _share(2 * right[index], predicted[index] + true[index]),
        }
        for index, label in enumerate(labels)
    }


def wilson_interval(right: int, of: int) -> list[float]:
    """The shares [low, high] that `right` of `of` answers leave plausible, at 95 % (Wilson, 1927)."""
    z = 1.959964
    centre, spread = right + z**2 / 2, z * (right * (of - right) / of + z**2 / 4) ** 0.5
    return [(centre - spread) / (of + z**2), (centre + spread) / (of + z**2)]


def calibration(confidence: np.ndarray, right: np.ndarray) -> dict:
    """How near the probability of the predicted class, the confidence [N], comes to the share that is `right` [N].

    Pictures are sorted by confidence into bins of equal width. The expected calibration error is the mean distance of a
    bin's confidence and accuracy, weighted by its pictures (Guo et al., 2017).
    """
    bin_of = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    counts, confidences, rights = (
        np.bincount(bin_of, weights, CALIBRATION_BINS) for weights in (None, confidence, right)
    )
    return {
        "expected_calibration_error": float(np.abs(confidences - rights).sum() / len(right)),
        "bins": [
            {
                "from": index / CALIBRATION_BINS,
                "to": (index + 1) / CALIBRATION_BINS,
                "pictures": int(counts[index]),
                "confidence": _share(confidences[index], counts[index]),
                "accuracy": _share(rights[index], counts[index]),
            }
            for index in range(CALIBRATION_BINS)
        ],
    }


def _top_k_accuracy(logits: torch.Tensor, targets: np.ndarray, k: int) -> float:
    return float((logits.topk(k, dim=1).indices == torch.as_tensor(targets)[:, None]).any(dim=1).double().mean())


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None
