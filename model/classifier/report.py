"""The page of a run: one HTML file that needs nothing else, opened from the disk."""

import base64
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from markupsafe import Markup
from PIL import Image

from classifier.archive import write_atomically
from classifier.charts import line_chart, percent, reliability_diagram
from classifier.data import Pictures
from classifier.metrics import probabilities
from classifier.plots import highest_loss
from classifier.preprocessing import PictureError, read_picture
from classifier.template import environment

WORST_PICTURES = 24
THUMBNAIL_PIXELS = 160
# Up to here a matrix fits on the page; of more classes only the most confused are shown.
MATRIX_CLASSES = 16
CONFUSED_PAIRS = 15
NOT_DEFINED = "\N{EN DASH}"
SHORT_LABEL = 4  # characters, that fit above a column
UNITS = {
    "batch_size": "pictures",
    "epochs": "at most",
    "features_computed": "pictures",
    "features_from_cache": "pictures",
    "hidden": "units",
    "image_size": "pixels",
    "patience": "epochs",
}


def write_report(path: Path, metrics: dict, pictures: Pictures, logits: torch.Tensor) -> None:
    """Write the report of metrics.json's content with the worst of the test pictures, whose logits are [N, classes].

    Raises OSError where `path` cannot be written. Of metrics, speed, cost, int8, network, versions and git_commit may
    lack.
    """
    filters = {"percent": _percent, "duration": _duration, "quantity": _quantity, "usd": _usd}
    filters |= {"breakable": _breakable, "count": "{:,}".format}
    history = {name: [epoch[name] for epoch in metrics["history"]] for name in metrics["history"][0]}
    losses = {"training": history["train_loss"], "validation": history["validation_loss"]}
    accuracy = {"validation": history["validation_accuracy"]}
    matrix = np.array(metrics["confusion_matrix"]["rows_true_columns_predicted"])
    kept, limit = metrics["best_epoch"], highest_loss(*losses.values(), metrics["validation_loss"])
    confidences = [(part["pictures"], part["confidence"] or 0.0) for part in metrics["calibration"]["bins"]]
    labels, shown = metrics["confusion_matrix"]["labels"], classes_to_show(matrix)
    figures = enumerate(metrics["per_class"].items())
    by_class = sorted(((index, label, row) for index, (label, row) in figures), key=lambda row: row[2]["f1"] or 0.0)
    page = (
        environment(**filters)
        .get_template("report.html")
        .render(
            metrics=metrics,
            labels=labels,
            matrix=matrix.tolist(),
            shown_classes=shown,
            upright_labels=max((len(labels[index]) for index in shown), default=0) > SHORT_LABEL,
            pairs=confused_pairs(matrix)[:CONFUSED_PAIRS],
            mean_confidence=sum(count * value for count, value in confidences) / int(matrix.sum()),
            by_class=by_class,
            loss_chart=line_chart(losses, kept, highest=limit, unit="nats"),
            accuracy_chart=line_chart(accuracy, kept, highest=1, unit="accuracy", shares=True),
            reliability=reliability_diagram(metrics["calibration"]),
            worst=worst_pictures(pictures, logits),
            facts={
                "Time and speed": {"whole_run_seconds": metrics["seconds"], **metrics.get("speed", {})},
                "Recipe": metrics["recipe"],
                "Network": metrics.get("network"),
                "Served as int8": _int8_facts(metrics.get("int8")),
                "Versions": {"git_commit": metrics.get("git_commit"), **metrics.get("versions", {})},
            },
        )
    )
    # A file name may have bytes that are no text.
    write_atomically(path, page.encode(errors="replace"))


def _int8_facts(cost: dict | None) -> dict:
    """What quantisation cost, in all and for the class that lost most."""
    if not cost:
        return {}
    changes = {label: change for label, change in cost["recall_change_points"].items() if change is not None}
    label = min(changes, key=changes.get)
    return {
        "test_accuracy": percent(cost["test_accuracy"], digits=1),
        "accuracy_drop": f"{cost['accuracy_drop_points']:.2f} points",
        "largest_change_of_a_class": f"{label}: {changes[label]:+.2f} points of recall",
    }


def confused_pairs(matrix: np.ndarray) -> list[tuple[int, int, int]]:
    """(true class, predicted class, pictures) of every confusion, the most frequent first."""
    wrong = matrix * (1 - np.eye(len(matrix), dtype=int))
    return sorted(
        ((int(true), int(predicted), int(wrong[true, predicted])) for true, predicted in np.argwhere(wrong)),
        key=lambda pair: (-pair[2], pair),
    )


def classes_to_show(matrix: np.ndarray) -> list[int]:
    """All classes where they are few; else those of the most frequent confusions, the confused side by side."""
    if len(matrix) <= MATRIX_CLASSES:
        return list(range(len(matrix)))
    shown: list[int] = []
    for one, other, _ in confused_pairs(np.triu(matrix + matrix.T)):
        new = [index for index in (one, other) if index not in shown]
        if len(shown) + len(new) > MATRIX_CLASSES:
            continue
        place = 1 + max((shown.index(index) for index in (one, other) if index in shown), default=len(shown) - 1)
        shown[place:place] = new
    return shown


def worst_pictures(pictures: Pictures, logits: torch.Tensor) -> list[dict]:
    """The pictures that gave their own class the least probability, least first, each with a thumbnail."""
    shares, targets = probabilities(logits), np.asarray(pictures.targets)
    of_truth = shares[np.arange(len(targets)), targets]
    # By the logits' difference, because probabilities of very sure mistakes are all 0.
    losses = torch.nn.functional.cross_entropy(logits.double(), torch.as_tensor(targets), reduction="none")
    predicted = logits.argmax(dim=1).tolist()
    return [
        {
            "file": pictures.paths[index].name,
            "true": pictures.labels[targets[index]],
            "predicted": pictures.labels[predicted[index]],
            "right": predicted[index] == targets[index],
            "true_probability": float(of_truth[index]),
            "predicted_probability": float(shares[index, predicted[index]]),
            "thumbnail": _thumbnail(pictures.paths[index]),
        }
        for index in losses.argsort(descending=True, stable=True)[:WORST_PICTURES].tolist()
    ]


def _thumbnail(path: Path) -> str | None:
    """A JPEG as a data: URL; None where the file can no longer be read."""
    try:
        picture = read_picture(path)
    except PictureError:
        return None
    scale = THUMBNAIL_PIXELS / max(picture.size)
    if scale >= 2:
        # Tiny pictures as they are, their pixels seen, and not blurred.
        picture = picture.resize([edge * int(scale) for edge in picture.size], Image.Resampling.NEAREST)
    picture.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _percent(share: float | None) -> str:
    return NOT_DEFINED if share is None else percent(share, digits=1)


def _breakable(name: str) -> Markup:
    """Lets a long name break where its words do."""
    return Markup("_<wbr>").join(name.split("_"))


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f}\N{NO-BREAK SPACE}s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"


def _usd(amount: float) -> str:
    return f"{amount:.2f} USD" if amount >= 0.1 else f"{amount:.4f} USD"


def _quantity(name: str, value) -> tuple[str, str]:
    """A row of a table from a name that tells its unit: ("extraction speed", "54.2 pictures/s")."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    for ending, instead, shown in (
        ("_pictures_per_second", " speed", lambda rate: f"{rate:,.1f} pictures/s"),
        ("_seconds", "", _duration),
        ("_bytes", "", lambda size: f"{size / 1e6:,.1f} MB"),
    ):
        if name.endswith(ending) and (number or value is None):
            return name.removesuffix(ending).replace("_", " ") + instead, shown(value) if number else NOT_DEFINED
    if isinstance(value, bool):
        text = "yes" if value else "no"
    elif value is None:
        text = NOT_DEFINED
    elif name in UNITS and number:
        text = f"{value:,} {UNITS[name]}"
    else:
        text = f"{value:g}" if isinstance(value, float) else str(value)
    return name.replace("_", " "), text
