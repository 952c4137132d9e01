"""The demo's pictures: the 1,797 scanned handwritten digits that scikit-learn carries, as class folders of PNGs."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits


def write_digits(folder: Path) -> int:
    """Writes folder/<digit>/<index>.png, 8 x 8 pixels, 8-bit greyscale; returns how many pictures there are.

    Source: UCI "Optical Recognition of Handwritten Digits", test part, intensities 0 to 16 scaled to 0 to 255.
    """
    digits = load_digits()
    for index, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / str(label) / f"{index:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255 / 16).round().astype("uint8")).save(path)
    return len(digits.images)
