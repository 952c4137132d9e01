"""Figures of a trained classifier: confusion matrix and per-class precision and recall."""

from collections.abc import Sequence

import numpy as np


def confusion_matrix(targets: Sequence[int], predicted: Sequence[int], classes: int) -> np.ndarray:
    """int64 [classes, classes]: row is the true class, column the predicted one."""
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (np.asarray(targets), np.asarray(predicted)), 1)
    return matrix


def per_class(matrix: np.ndarray, labels: Sequence[str]) -> dict[str, dict]:
    """Of each label: its number of pictures, precision and recall in 0..1; None where nothing is to divide by."""
    right, predicted, true = matrix.diagonal(), matrix.sum(axis=0), matrix.sum(axis=1)
    return {
        label: {
            "pictures": int(true[index]),
            "precision": float(right[index] / predicted[index]) if predicted[index] else None,
            "recall": float(right[index] / true[index]) if true[index] else None,
        }
        for index, label in enumerate(labels)
    }
