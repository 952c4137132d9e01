"""JPEGs with the size, the bytes and the statistics of photographs, the same ones for the same seed."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

QUALITY = 90
# Amplitudes of natural scenes fall with the frequency about as 1/f; a little less steep where a sensor adds grain.
SPECTRUM = -0.98
SHAPES = 24


def photograph(width: int, height: int, rng: np.random.Generator, quality: int = QUALITY) -> bytes:
    """A JPEG: a soft background, shapes with edges in front, and texture over both."""
    image = Image.fromarray(_spectrum_noise(width, height, -1.6, rng, contrast=45))
    canvas = ImageDraw.Draw(image)
    for _ in range(SHAPES):
        x, y = rng.uniform(0, (width, height))
        radius = rng.uniform(0.02, 0.15) * width
        colour = tuple(int(value) for value in rng.integers(20, 236, 3))
        if rng.random() < 0.5:
            canvas.ellipse((x - radius, y - radius, x + radius, y + radius * rng.uniform(0.4, 1)), fill=colour)
        else:
            corners = rng.normal((x, y), radius, (4, 2))
            canvas.polygon([tuple(corner) for corner in corners], fill=colour)
    # A lens softens edges over about a pixel.
    values = np.asarray(image.filter(ImageFilter.GaussianBlur(0.6)), dtype=np.float32)
    values += _spectrum_noise(width, height, SPECTRUM, rng, contrast=20) - 128.0
    encoded = BytesIO()
    Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(encoded, "JPEG", quality=quality)
    return encoded.getvalue()


def write_folder(folder: Path, counts: dict[str, int], classes: int, size: tuple[int, int], distinct: int = 64) -> Path:
    """folder/<split>/<class>/<number>.jpg with `counts` pictures a split; width and height in `size`.

    After `distinct` pictures they repeat with another comment in the file, so that no two files are equal in content
    and thousands are written in seconds.
    """
    rng = np.random.default_rng(0)
    pictures = [photograph(*size, rng) for _ in range(min(distinct, sum(counts.values())))]
    number = 0
    for split, count in counts.items():
        for index in range(count):
            path = folder / split / f"class{index % classes:03}" / f"{number:05}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_with_comment(pictures[number % len(pictures)], f"{number:05}".encode()))
            number += 1
    return folder


def _spectrum_noise(width: int, height: int, exponent: float, rng: np.random.Generator, contrast: float) -> np.ndarray:
    """uint8 [height, width, 3] around 128: noise whose amplitudes go with frequency ** exponent, mostly grey."""
    down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    frequency = np.hypot(down, across)
    frequency[0, 0] = np.inf
    white = rng.standard_normal((3, height, width), np.float32) * 0.3 + rng.standard_normal((height, width), np.float32)
    noise = np.fft.irfft2(np.fft.rfft2(white) * np.float32(frequency**exponent), (height, width)).transpose(1, 2, 0)
    return (128 + noise / noise.std() * contrast).clip(0, 255).astype(np.uint8)


def _with_comment(jpeg: bytes, text: bytes) -> bytes:
    # Right after the start-of-image marker: marker FFFE, a length that counts itself, the text.
    return jpeg[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + jpeg[2:]
