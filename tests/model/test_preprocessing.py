"""Any picture to the network's input."""

from __future__ import annotations

import io

import numpy as np
import pytest
from classifier.preprocessing import PictureError, PictureTooLargeError, Preprocessing, read_picture
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

PLAIN = Preprocessing(32, 32, mean=(0, 0, 0), std=(1, 1, 1))


def encoded(image: Image.Image, file_format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


@given(
    st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "I;16"]),
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(1, 48),
    st.integers(0, 30),
)
def test_any_png_becomes_finite_pixels_of_the_asked_size(mode, width, height, image_size, margin):
    pixels = Preprocessing(image_size, image_size + margin)(encoded(Image.new(mode, (width, height))))
    assert pixels.shape == (3, image_size, image_size) and pixels.dtype == np.float32
    assert pixels.flags.c_contiguous and np.isfinite(pixels).all()


@given(st.binary(max_size=300), st.integers(0, 500), st.integers(0, 255))
def test_damaged_bytes_raise_picture_error_or_give_a_picture(data, position, value):
    picture = bytearray(encoded(Image.radial_gradient("L").resize((20, 20))))
    picture[position % len(picture)] = value
    for candidate in (data, bytes(picture), bytes(picture[:position])):
        try:
            assert read_picture(candidate).mode == "RGB"
        except PictureError as error:
            assert str(error)


def test_values_are_normalised_per_channel():
    white = encoded(Image.new("RGB", (8, 8), (255, 0, 51)))
    pixels = Preprocessing(4, 4, mean=(0.5, 0.5, 0.2), std=(0.5, 0.25, 1))(white)
    assert np.allclose(pixels.mean(axis=(1, 2)), [1, -2, 0], atol=1e-6)


def test_the_centre_square_is_cut_out():
    image = Image.new("RGB", (300, 100), "red")
    image.paste("lime", (100, 0, 200, 100))
    pixels = PLAIN(encoded(image))[:, :, 1:-1]  # At the edge, scaling mixes in the neighbour.
    assert np.allclose(pixels[1], 1) and np.allclose(pixels[0], 0)


def test_resize_size_beyond_image_size_cuts_a_margin():
    image = Image.new("RGB", (64, 64), "red")
    image.paste("lime", (8, 8, 56, 56))
    assert PLAIN(encoded(image))[0].max() > 0.9
    assert Preprocessing(24, 32, (0, 0, 0), (1, 1, 1))(encoded(image))[0].max() < 0.5


def test_sixteen_bit_grey_keeps_its_shades():
    ramp = Image.fromarray(np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32))
    pixels = PLAIN(encoded(ramp))
    assert abs(pixels.mean() - 0.5) < 0.02 and pixels.min() < 0.01 and pixels.max() > 0.98


def test_transparency_shows_white_and_not_the_hidden_colour():
    assert PLAIN(encoded(Image.new("RGBA", (8, 8), (255, 0, 0, 0)))).min() == 1


def test_cmyk_jpeg_has_the_colours_of_its_rgb_original():
    image = Image.new("RGB", (32, 32), (200, 60, 20))
    assert np.abs(PLAIN(encoded(image.convert("CMYK"), "JPEG")) - PLAIN(encoded(image))).max() < 0.05


def test_exif_orientation_turns_the_picture_upright():
    upright = Image.new("RGB", (40, 40), "black")
    upright.paste("white", (0, 0, 40, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(upright.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif)
    pixels = PLAIN(data)
    assert pixels[:, :12].min() > 0.9 and pixels[:, -12:].max() < 0.1


def test_too_many_pixels_are_refused_from_the_header_alone():
    data = encoded(Image.new("L", (2000, 1000)))
    # Without the pixels: decoding would fail with another error.
    with pytest.raises(PictureTooLargeError, match="2000 x 1000"):
        read_picture(data[:60], max_pixels=1_999_999)
    assert read_picture(data, max_pixels=2_000_000).size == (2000, 1000)


@pytest.mark.parametrize(("data", "reason"), [(b"", "not a JPEG"), (b"<html>", "not a JPEG")])
def test_what_is_no_picture_says_so(data, reason):
    with pytest.raises(PictureError, match=reason):
        read_picture(data)


def test_a_missing_file_is_named_as_unreadable(tmp_path):
    with pytest.raises(PictureError, match="No such file"):
        read_picture(tmp_path / "none.png")


def test_it_survives_json():
    preprocessing = Preprocessing(96, 110)
    assert Preprocessing.from_json({**preprocessing.to_json(), "labels": ["a"]}) == preprocessing


@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 2**32 - 1))
def test_random_boxes_stay_inside_the_picture(width, height, seed):
    left, top, right, bottom = PLAIN.random_box((width, height), np.random.default_rng(seed), 0.75)
    assert -1e-9 <= left < right <= width + 1e-9 and -1e-9 <= top < bottom <= height + 1e-9
    assert PLAIN.pixels(Image.new("RGB", (width, height)), (left, top, right, bottom), True).shape == (3, 32, 32)
