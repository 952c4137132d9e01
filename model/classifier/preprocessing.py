"""From an encoded picture to the network's input: the one place that knows sizes and means.

Training, evaluation and serving all come through here, so that a picture means the same numbers everywhere.
Only Pillow and NumPy are needed: the hosting image has no torch.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

# What ImageNet's weights in torchvision were trained with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Decoders for what cameras and browsers produce; Pillow's rarer ones are attack surface without a user.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
# A 30 KB PNG can claim gigabytes: 50 million pixels are 150 MB as RGB, and the largest common camera picture.
MAX_PIXELS = 50_000_000

Box = tuple[float, float, float, float]


class PictureError(ValueError):
    """The bytes are no picture that can be read; the message says what is wrong with them."""


class PictureTooLargeError(PictureError):
    """The picture has more pixels than allowed; it was not decoded."""


def read_picture(source: bytes | str | os.PathLike, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a file's bytes, or the file at a path, to an upright 8-bit RGB picture.

    The size is read from the header and compared with `max_pixels` before anything is decoded. Of an animation the
    first frame counts; transparency shows white.

    Raises PictureTooLargeError above `max_pixels`, PictureError for everything else that is not a readable picture.
    """
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as error:
        raise PictureError(f"cannot be read: {error.strerror}") from error
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise PictureTooLargeError(f"{width} x {height} pixels, more than {max_pixels:,} allowed")
            # exif_transpose loads the pixels, so a truncated file fails here.
            return _to_rgb(ImageOps.exif_transpose(image))
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        raise PictureTooLargeError(str(error)) from error
    except Image.UnidentifiedImageError as error:
        raise PictureError(f"not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} picture") from error
    except Exception as error:  # Damaged files make decoders raise nearly anything.
        raise PictureError(f"damaged picture: {error}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # 16-bit grey: Pillow's own conversion clips at 255 and would turn nearly everything white.
        return Image.fromarray((np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        # Dropping alpha would bring up whatever colour happens to lie under it.
        opaque = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque).convert("RGB")
    return image.convert("RGB")


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the network's input.

    image_size: edge in pixels of the square the network sees.
    resize_size: length in pixels the shorter edge is scaled to before the centre square is cut out; equal to
        image_size it keeps everything but the overhang of the longer edge.
    mean, std: per channel, RGB, of values in 0..1.
    """

    image_size: int
    resize_size: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    @classmethod
    def from_json(cls, description: Mapping) -> "Preprocessing":
        """Read the four fields from a model.json that also holds other things."""
        return cls(
            image_size=int(description["image_size"]),
            resize_size=int(description["resize_size"]),
            mean=tuple(map(float, description["mean"])),
            std=tuple(map(float, description["std"])),
        )

    def to_json(self) -> dict:
        """The fields as they stand in model.json."""
        return {
            "image_size": self.image_size,
            "resize_size": self.resize_size,
            "mean": list(self.mean),
            "std": list(self.std),
        }

    def __call__(self, source: bytes | str | os.PathLike, max_pixels: int = MAX_PIXELS) -> np.ndarray:
        """Encoded picture (bytes or path) to float32 [3, image_size, image_size]; raises PictureError."""
        image = read_picture(source, max_pixels)
        return self.pixels(image, self.centre_box(image.size))

    def centre_box(self, size: tuple[int, int]) -> Box:
        """The centre square (left, top, right, bottom) of a picture of this (width, height), in its own pixels."""
        width, height = size
        edge = min(size) * self.image_size / self.resize_size
        left, top = (width - edge) / 2, (height - edge) / 2
        return left, top, left + edge, top + edge

    def random_box(self, size: tuple[int, int], rng: np.random.Generator, smallest: float) -> Box:
        """A random rectangle for training: `smallest`..1 of the centre square's edge, at most 9:8 in aspect."""
        width, height = size
        edge = min(size) * rng.uniform(smallest, 1)
        stretch = rng.uniform(8 / 9, 9 / 8) ** 0.5
        box_width, box_height = min(edge * stretch, width), min(edge / stretch, height)
        # Near the centre only as far as the shorter edge's square reaches: what is served is the centre.
        left = (width - box_width) / 2 + rng.uniform(-1, 1) * max(min(size) - box_width, 0) / 2
        top = (height - box_height) / 2 + rng.uniform(-1, 1) * max(min(size) - box_height, 0) / 2
        return left, top, left + box_width, top + box_height

    def pixels(self, image: Image.Image, box: Box, mirrored: bool = False) -> np.ndarray:
        """Scale the box of an RGB picture to float32 [3, image_size, image_size], normalised.

        Cutting and scaling in one step never builds the scaled whole, which a 1 x 10,000 picture would blow up.
        """
        box = (max(box[0], 0), max(box[1], 0), min(box[2], image.width), min(box[3], image.height))
        square = image.resize((self.image_size, self.image_size), Image.Resampling.BILINEAR, box=box)
        values = np.asarray(square, dtype=np.float32) / 255
        if mirrored:
            values = values[:, ::-1]
        values = (values - np.float32(self.mean)) / np.float32(self.std)
        return np.ascontiguousarray(values.transpose(2, 0, 1))
