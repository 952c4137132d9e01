"""The pictures of a run: training curve and confusion matrix, as PNG files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from classifier.fit import Epoch

DOTS_PER_INCH = 120
# Up to here each cell can hold its count in figures.
CLASSES_WITH_COUNTS = 25


def training_curve(history: Sequence[Epoch], best: Epoch, path: Path) -> None:
    """Losses and validation accuracy by epoch, with the epoch that was kept."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, accuracy = figure.subplots(1, 2)
    epochs = [epoch.epoch for epoch in history]
    marker = "o" if len(epochs) < 40 else None
    losses.plot(epochs, [epoch.train_loss for epoch in history], marker=marker, ms=4, label="training, smoothed labels")
    losses.plot(epochs, [epoch.validation_loss for epoch in history], marker=marker, ms=4, label="validation")
    losses.set(title="Loss", xlabel="epoch", ylabel="cross-entropy (nats)")
    limit = highest_loss([e.train_loss for e in history], [e.validation_loss for e in history], best.validation_loss)
    losses.set_ylim(0, limit)
    accuracy.plot(epochs, [epoch.validation_accuracy for epoch in history], marker=marker, ms=4, color="C1")
    accuracy.set(title="Accuracy on validation", xlabel="epoch", ylabel="share right", ylim=(0, 1.02))
    kept = f"kept: epoch {best.epoch}"
    for axes in (losses, accuracy):
        axes.axvline(best.epoch, color="0.5", ls="--", lw=1, label=kept, zorder=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    losses.legend(frameon=False)
    accuracy.annotate(
        f"{best.validation_accuracy:.1%}",
        (best.epoch, best.validation_accuracy),
        textcoords="offset points",
        xytext=(0, -16),
        ha="center",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
    )
    _save(figure, path)


def highest_loss(training: Sequence[float], validation: Sequence[float], kept: float) -> float:
    """Where a plot of losses should end: a spike of the first epochs would press the rest of the curve flat."""
    return max(np.percentile([*training, *validation], 95), kept, 1e-6) * 1.15


def confusion_matrix(matrix: Sequence[Sequence[int]], labels: Sequence[str], path: Path) -> None:
    """Rows true, columns predicted, coloured by the share of the true class, with counts where they fit."""
    matrix, classes = np.asarray(matrix), len(labels)
    edge = max(5.5, min(0.5 * classes, 8) if classes <= CLASSES_WITH_COUNTS else 0.155 * classes)
    figure = Figure(figsize=(edge + 1.5, edge + 0.5), layout="constrained")
    axes = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(image, ax=axes, shrink=0.6, aspect=30, label="share of the true class")
    size = 10 if classes <= 15 else 8 if classes <= CLASSES_WITH_COUNTS else 6
    # A folder's name may have bytes that are no text, and a dollar sign in it begins no formula.
    names = [label.encode(errors="replace").decode() for label in labels]
    shown = [name if len(name) <= 28 else name[:27] + "…" for name in names]
    upright = sum(map(len, shown)) > 6 * classes or classes > CLASSES_WITH_COUNTS
    axes.set_xticks(range(classes), shown, rotation=90 if upright else 0, fontsize=size, parse_math=False)
    axes.set_yticks(range(classes), shown, fontsize=size, parse_math=False)
    right = int(matrix.trace())
    axes.set(xlabel="predicted", ylabel="true", title=f"Test pictures: {right} of {int(matrix.sum())} right")
    if classes <= CLASSES_WITH_COUNTS:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, matrix[row, column], ha="center", va="center", fontsize=size, color=colour)
    else:
        # Without figures a single confusion is a pale dot in a large grid: outline it.
        rows, columns = np.nonzero(matrix * (1 - np.eye(classes, dtype=int)))
        axes.scatter(columns, rows, s=12, marker="s", facecolors="none", edgecolors="C3", linewidths=0.6)
        edges = np.arange(1, classes) - 0.5
        axes.hlines(edges, -0.5, classes - 0.5, color="0.92", lw=0.3)
        axes.vlines(edges, -0.5, classes - 0.5, color="0.92", lw=0.3)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    # The canvas is named, so that no display and no global pyplot state is needed.
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=DOTS_PER_INCH)
