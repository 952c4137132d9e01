"""From an encoded picture to the network's input: the one place that knows sizes and means.

Training, evaluation and serving all come through here, so that a picture means the same numbers everywhere.
Only Pillow and NumPy are needed: the hosting image has no torch.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image
from PIL.ExifTags import Base

try:
    import simplejpeg
except ImportError:  # AWS's prebuilt images have Pillow only: slower, and the same pixels.
    simplejpeg = None

# What ImageNet's weights in torchvision were trained with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Decoders for what cameras and browsers produce; Pillow's rarer ones are attack surface without a user.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
# MPO is what Pillow calls a JPEG that is followed by others, as telephones write them.
JPEG_FORMATS = ("JPEG", "MPO")
# A 30 KB PNG can claim gigabytes: 50 million pixels are 150 MB as RGB, and the largest common camera picture.
MAX_PIXELS = 50_000_000

# A JPEG decodes at these fractions of its size for a fraction of the work. Scaling averages over at least
# OVERSAMPLING decoded pixels each way, so that the result is within about 1/255 (root mean square) of a full decode's.
JPEG_REDUCTIONS = (8, 4, 2)
OVERSAMPLING = 2

# EXIF's orientation: how the stored rows are brought upright, as (mirror left-right, mirror top-bottom, transpose).
ORIENTATIONS = {
    1: (False, False, False),
    2: (True, False, False),
    3: (True, True, False),
    4: (False, True, False),
    5: (False, False, True),
    6: (False, True, True),
    7: (True, True, True),
    8: (True, False, True),
}

Source = bytes | str | os.PathLike
Box = tuple[float, float, float, float]


class PictureError(ValueError):
    """The bytes are no picture that can be read; the message says what is wrong with them."""


class PictureTooLargeError(PictureError):
    """The picture has more pixels than allowed; it was not decoded."""


@dataclass(frozen=True)
class EncodedPicture:
    """A picture of which the header was read, and the pixels are not decoded before it is known how many are needed.

    data: the encoded bytes. image: Pillow's view of them. orientation: a key of ORIENTATIONS.
    """

    data: bytes
    image: Image.Image
    orientation: int

    @classmethod
    def open(cls, source: Source, max_pixels: int = MAX_PIXELS) -> "EncodedPicture":
        """Read the header of a file's bytes, or of the file at a path.

        Raises PictureTooLargeError above `max_pixels`, PictureError where this is no picture.
        """
        try:
            data = source if isinstance(source, bytes) else Path(source).read_bytes()
        except OSError as error:
            raise PictureError(f"cannot be read: {error.strerror}") from error
        with _picture_errors():
            image = _header(BytesIO(data), max_pixels)
            return cls(data, image, _orientation(image))

    @property
    def is_jpeg(self) -> bool:
        return self.image.format in JPEG_FORMATS

    @property
    def stored_size(self) -> tuple[int, int]:
        """(width, height) in pixels, before turning upright."""
        return self.image.size

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels, upright."""
        _, _, transposed = ORIENTATIONS[self.orientation]
        return self.stored_size[::-1] if transposed else self.stored_size

    def decode(self, reduction: int = 1) -> Image.Image:
        """The pixels as 8-bit RGB, not turned upright; of a JPEG, 1/reduction (2, 4, 8) of them each way, rounded up.

        Of an animation the first frame counts; transparency shows white. Raises PictureError.
        """
        with _picture_errors():
            if self.is_jpeg:
                return _decode_jpeg(self.data, self.image, reduction)
            # Opened again, because a picture keeps its pixels, and of a request there may be dozens.
            return _to_rgb(Image.open(BytesIO(self.data), formats=FORMATS))

    def verify(self) -> None:
        """Decode everything, as small as possible; raises PictureError where the pixels are damaged."""
        largest = JPEG_REDUCTIONS[0]
        self.decode(largest if min(self.size) >= largest else 1)

    def stored(self, box: Box) -> Box:
        """Where a box of the upright picture lies in the stored one."""
        mirrored, flipped, transposed = ORIENTATIONS[self.orientation]
        width, height = self.stored_size
        left, top, right, bottom = (box[1], box[0], box[3], box[2]) if transposed else box
        if mirrored:
            left, right = width - right, width - left
        if flipped:
            top, bottom = height - bottom, height - top
        return left, top, right, bottom

    def upright(self, pixels: np.ndarray) -> np.ndarray:
        """Stored pixels [height, width, ...] as they are to be looked at: a view."""
        mirrored, flipped, transposed = ORIENTATIONS[self.orientation]
        pixels = pixels[:: -1 if flipped else 1, :: -1 if mirrored else 1]
        return pixels.swapaxes(0, 1) if transposed else pixels


def read_picture(source: Source, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode all of a file's bytes, or of the file at a path, to an upright 8-bit RGB picture.

    Raises PictureTooLargeError above `max_pixels`, PictureError for everything else that is not a readable picture.
    """
    picture = EncodedPicture.open(source, max_pixels)
    image = picture.decode()
    if picture.orientation == 1:
        return image
    return Image.fromarray(np.ascontiguousarray(picture.upright(np.asarray(image))))


def check_header(path: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> None:
    """Raise what EncodedPicture.open would, without reading the whole file."""
    try:
        with open(path, "rb") as file, _picture_errors():
            _header(file, max_pixels)
    except OSError as error:
        raise PictureError(f"cannot be read: {error.strerror}") from error


def _header(file: BinaryIO, max_pixels: int) -> Image.Image:
    image = Image.open(file, formats=FORMATS)
    width, height = image.size
    if width * height > max_pixels:
        raise PictureTooLargeError(f"{width} x {height} pixels, more than {max_pixels:,} allowed")
    return image


@contextmanager
def _picture_errors() -> Iterator[None]:
    try:
        yield
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        raise PictureTooLargeError(str(error)) from error
    except Image.UnidentifiedImageError as error:
        raise PictureError(f"not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} picture") from error
    except Exception as error:  # Damaged files make decoders raise nearly anything.
        raise PictureError(f"damaged picture: {error}") from error


def _orientation(image: Image.Image) -> int:
    orientation = image.getexif().get(Base.Orientation, 1)
    return orientation if orientation in ORIENTATIONS else 1


def _decode_jpeg(data: bytes, header: Image.Image, reduction: int) -> Image.Image:
    width, height = (-(-edge // reduction) for edge in header.size)
    if simplejpeg and header.mode in ("L", "RGB"):
        try:
            # It is held to the size that was checked: two parsers may disagree on a malicious header.
            if simplejpeg.decode_jpeg_header(data, min_height=height, min_width=width)[:2] == (height, width):
                return Image.fromarray(simplejpeg.decode_jpeg(data, min_height=height, min_width=width))
        except ValueError:
            pass  # Unusual or damaged; Pillow is the judge of which.
    # Opened again, because a picture can be told only once to decode at a scale.
    image = Image.open(BytesIO(data), formats=FORMATS)
    if reduction > 1:
        image.draft(None, (header.width // reduction, header.height // reduction))
    return image.convert("RGB")


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

    def __call__(self, source: Source, max_pixels: int = MAX_PIXELS) -> np.ndarray:
        """A picture as it is served: bytes or path to float32 [3, image_size, image_size]; raises PictureError."""
        return self.served(EncodedPicture.open(source, max_pixels))

    def served(self, picture: EncodedPicture) -> np.ndarray:
        """The centre square of a picture as float32 [3, image_size, image_size]; raises PictureError."""
        return self.pixels(picture, self.centre_box(picture.size))

    def augmented(self, source: Source, rng: np.random.Generator, smallest_crop: float, mirror: bool) -> np.ndarray:
        """A view for training: a random box of the picture and, with `mirror`, half of the times its mirror image.

        What is drawn depends on `rng` and the picture's size alone. float32 [3, image_size, image_size]; raises
        PictureError.
        """
        picture = EncodedPicture.open(source)
        box = self.random_box(picture.size, rng, smallest_crop)
        return self.pixels(picture, box, mirrored=mirror and rng.random() < 0.5)

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

    def pixels(self, picture: EncodedPicture, box: Box, mirrored: bool = False) -> np.ndarray:
        """Decode a picture and scale its box (upright) to float32 [3, image_size, image_size], normalised.

        Cutting and scaling in one step never builds the scaled whole, which a 1 x 10,000 picture would blow up.
        Raises PictureError.
        """
        left, top, right, bottom = picture.stored(box)
        needed = self.image_size * OVERSAMPLING
        reduction = 1
        if picture.is_jpeg:
            enough = (n for n in JPEG_REDUCTIONS if min(right - left, bottom - top) >= n * needed)
            reduction = next(enough, 1)
        image = picture.decode(reduction)
        box = (
            max(left / reduction, 0),
            max(top / reduction, 0),
            min(right / reduction, image.width),
            min(bottom / reduction, image.height),
        )
        square = image.resize((self.image_size, self.image_size), Image.Resampling.BILINEAR, box=box)
        # Turned when it is small.
        values = picture.upright(np.asarray(square))
        if mirrored:
            values = values[:, ::-1]
        values = values.transpose(2, 0, 1).astype(np.float32, order="C")
        # (value / 255 - mean) / std in two passes over the memory instead of four.
        mean, std = np.array(self.mean)[:, None, None], np.array(self.std)[:, None, None]
        values *= (1 / (255 * std)).astype(np.float32)
        values -= (mean / std).astype(np.float32)
        return values
