"""Any picture to the network's input."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import simplejpeg
from classifier import preprocessing
from classifier.preprocessing import (
    EncodedPicture,
    PictureError,
    PictureTooLargeError,
    Preprocessing,
    check_header,
    read_picture,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_image

PLAIN = Preprocessing(32, 32, mean=(0, 0, 0), std=(1, 1, 1))


def encoded(image: Image.Image, file_format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """A real photograph of this size."""
    return ImageOps.fit(sample("china.jpg" if seed % 2 else "flower.jpg"), (width, height))


@cache
def sample(name: str) -> Image.Image:
    return Image.fromarray(load_sample_image(name))


def without_simplejpeg():
    return mock.patch.object(preprocessing, "simplejpeg", None)


def decoded_in_full():
    return mock.patch.object(preprocessing, "JPEG_REDUCTIONS", ())


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


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_jpeg_box_becomes_finite_pixels_within_the_range_of_the_normalised(data):
    width, height, image_size = data.draw(st.tuples(st.integers(1, 300), st.integers(1, 300), st.integers(1, 40)))
    mode = data.draw(st.sampled_from(["L", "RGB", "CMYK"]))
    picture = EncodedPicture.open(encoded(photograph(width, height).convert(mode), "JPEG"))
    left, right = sorted(data.draw(st.tuples(st.integers(0, width), st.integers(0, width))))
    top, bottom = sorted(data.draw(st.tuples(st.integers(0, height), st.integers(0, height))))
    box = (min(left, width - 1), min(top, height - 1), max(right, left + 1), max(bottom, top + 1))
    pixels = Preprocessing(image_size, image_size, (0, 0, 0), (1, 1, 1)).pixels(picture, box, data.draw(st.booleans()))
    assert pixels.shape == (3, image_size, image_size) and pixels.flags.c_contiguous
    assert pixels.min() >= 0 and pixels.max() <= 1 + 1e-6


@settings(max_examples=120, deadline=None)
@given(
    st.tuples(st.integers(1, 150), st.integers(1, 150)),
    st.sampled_from(["4:2:0", "4:2:2", "4:4:4", "4:1:1", "grey", "RGB"]),
    st.booleans(),
    st.sampled_from([30, 75, 95]),
    st.integers(0, 3),
)
def test_both_jpeg_decoders_give_the_same_pixels(size, kind, progressive, quality, seed):
    image = photograph(*size, seed)
    options = {"keep_rgb": True} if kind == "RGB" else {"subsampling": kind} if ":" in kind else {}
    data = encoded(
        image.convert("L" if kind == "grey" else "RGB"), "JPEG", quality=quality, progressive=progressive, **options
    )
    picture = EncodedPicture.open(data)
    for reduction in (1, 2, 4, 8):
        if reduction > 1 and min(size) < 2 * reduction:
            continue
        with mock.patch.object(simplejpeg, "decode_jpeg", wraps=simplejpeg.decode_jpeg) as fast:
            pixels = np.asarray(picture.decode(reduction))
        assert fast.called and pixels.shape == (-(-size[1] // reduction), -(-size[0] // reduction), 3)
        with without_simplejpeg():
            assert np.array_equal(pixels, np.asarray(picture.decode(reduction)))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2000), st.integers(0, 255), st.booleans(), st.sampled_from([1, 2]))
def test_both_jpeg_decoders_agree_on_what_is_damaged(position, value, cut, reduction):
    data = bytearray(encoded(photograph(40, 30), "JPEG"))
    position %= len(data)
    data[position] = value

    def outcome() -> bytes | None:
        try:
            return EncodedPicture.open(bytes(data[:position] if cut else data)).decode(reduction).tobytes()
        except PictureError:
            return None

    fast = outcome()
    with without_simplejpeg():
        assert outcome() == fast


def test_the_archive_s_code_works_where_there_is_neither_simplejpeg_nor_torch():
    data = encoded(photograph(300, 200), "JPEG")
    code = (
        "import hashlib, sys; sys.modules.update(simplejpeg=None, torch=None)\n"
        "from classifier.preprocessing import Preprocessing\n"
        "print(hashlib.sha256(Preprocessing(32, 36)(sys.stdin.buffer.read())).hexdigest())"
    )
    model = Path(preprocessing.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, cwd=model, check=True)
    assert done.stdout.decode().strip() == hashlib.sha256(Preprocessing(32, 36)(data)).hexdigest()


@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4"])
@pytest.mark.parametrize(("image_size", "reduction"), [(106, 2), (53, 4), (26, 8)])
def test_a_large_jpeg_is_decoded_at_a_scale_and_looks_the_same(subsampling, image_size, reduction):
    data = encoded(sample("flower.jpg"), "JPEG", quality=90, subsampling=subsampling)
    transform = Preprocessing(image_size, image_size, (0, 0, 0), (1, 1, 1))
    with mock.patch.object(EncodedPicture, "decode", autospec=True, side_effect=EncodedPicture.decode) as decode:
        scaled = transform(data)
    assert decode.call_args.args[1] == reduction
    with decoded_in_full():
        difference = scaled - transform(data)
    assert 0 < np.sqrt(np.mean(difference**2)) < 1.5 / 255


def test_a_small_jpeg_is_decoded_exactly():
    data = encoded(photograph(255, 255), "JPEG")
    pixels = Preprocessing(64, 64)(data)
    with decoded_in_full():
        assert np.array_equal(pixels, Preprocessing(64, 64)(data))


@given(st.binary(max_size=300), st.integers(0, 5000), st.integers(0, 255), st.sampled_from(["PNG", "JPEG"]))
def test_damaged_bytes_raise_picture_error_or_give_a_picture(data, position, value, file_format):
    picture = bytearray(encoded(Image.radial_gradient("L").resize((20, 20)), file_format))
    position %= len(picture)
    picture[position] = value
    for candidate in (data, bytes(picture), bytes(picture[:position])):
        try:
            assert read_picture(candidate).mode == "RGB"
        except PictureError as error:
            assert str(error)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_verify_finds_a_picture_that_was_cut_short(file_format):
    whole = encoded(photograph(300, 200), file_format)
    EncodedPicture.open(whole).verify()
    with pytest.raises(PictureError, match="damaged picture"):
        EncodedPicture.open(whole[:-2000]).verify()


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


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("file_format", "tolerance"), [("PNG", 0.02), ("JPEG", 0.12)])
def test_exif_orientation_turns_the_picture_upright(orientation, file_format, tolerance):
    exif = Image.Exif()
    exif[0x0112] = orientation
    # Large enough for a scaled decode, and of odd size.
    data = encoded(photograph(301, 183, 1), file_format, exif=exif)
    upright = encoded(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert EncodedPicture.open(data).size == read_picture(data).size == read_picture(upright).size
    assert np.array_equal(np.asarray(read_picture(data)), np.asarray(read_picture(upright)))
    assert np.abs(PLAIN(data) - PLAIN(upright)).max() < tolerance
    # A box that is not in the middle.
    views = [PLAIN.augmented(source, np.random.default_rng(5), 0.4, True) for source in (data, upright)]
    assert np.abs(views[0] - views[1]).max() < tolerance


def test_an_orientation_that_does_not_exist_and_broken_exif_leave_the_picture_as_it_is():
    exif = Image.Exif()
    exif[0x0112] = 77
    for broken in (exif, b"Exif\0\0garbage"):
        assert EncodedPicture.open(encoded(photograph(30, 20), "JPEG", exif=broken)).size == (30, 20)


def test_of_a_jpeg_with_others_behind_it_the_first_counts():
    first, second = photograph(200, 150), Image.new("RGB", (200, 150), "red")
    data = encoded(first, "MPO", save_all=True, append_images=[second])
    assert np.array_equal(PLAIN(data), PLAIN(encoded(first, "JPEG")))


def test_of_an_animation_the_first_frame_counts():
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("blue", "red")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.array_equal(PLAIN(data), PLAIN(encoded(frames[0])))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_view_for_training_follows_from_the_generator_and_may_be_mirrored(seed):
    data = encoded(photograph(80, 60), "JPEG")
    plain, again, mirrored = (
        PLAIN.augmented(data, np.random.default_rng(seed), 0.7, mirror) for mirror in (False, False, True)
    )
    assert np.array_equal(plain, again)
    assert np.array_equal(plain, mirrored) or np.array_equal(plain, mirrored[:, :, ::-1])


def test_half_of_the_views_are_mirrored():
    data = encoded(photograph(80, 60), "JPEG")
    same = [
        np.array_equal(*(PLAIN.augmented(data, np.random.default_rng(seed), 0.7, mirror) for mirror in (False, True)))
        for seed in range(60)
    ]
    assert 15 < sum(same) < 45


def test_too_many_pixels_are_refused_from_the_header_alone():
    data = encoded(Image.new("L", (2000, 1000)))
    # Without the pixels: decoding would fail with another error.
    with pytest.raises(PictureTooLargeError, match="2000 x 1000"):
        read_picture(data[:60], max_pixels=1_999_999)
    assert read_picture(data, max_pixels=2_000_000).size == (2000, 1000)


def test_a_jpeg_that_claims_to_be_huge_is_refused_before_it_is_decoded(tmp_path):
    data = encoded(Image.new("L", (2000, 1000)), "JPEG")
    data = data.replace((1000).to_bytes(2) + (2000).to_bytes(2), (9_000).to_bytes(2) * 2)
    (tmp_path / "bomb.jpg").write_bytes(data)
    for read in (EncodedPicture.open, check_header):
        with pytest.raises(PictureTooLargeError, match="9000 x 9000"):
            read(tmp_path / "bomb.jpg")


@pytest.mark.parametrize(("data", "reason"), [(b"", "not a JPEG"), (b"<html>", "not a JPEG")])
def test_what_is_no_picture_says_so(data, reason):
    with pytest.raises(PictureError, match=reason):
        read_picture(data)


@pytest.mark.parametrize("read", [read_picture, check_header])
def test_a_missing_file_is_named_as_unreadable(read, tmp_path):
    with pytest.raises(PictureError, match="No such file"):
        read(tmp_path / "none.png")


def test_it_survives_json():
    preprocessing = Preprocessing(96, 110)
    assert Preprocessing.from_json({**preprocessing.to_json(), "labels": ["a"]}) == preprocessing


@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 2**32 - 1))
def test_random_boxes_stay_inside_the_picture(width, height, seed):
    left, top, right, bottom = PLAIN.random_box((width, height), np.random.default_rng(seed), 0.75)
    assert -1e-9 <= left < right <= width + 1e-9 and -1e-9 <= top < bottom <= height + 1e-9
    picture = EncodedPicture.open(encoded(Image.new("RGB", (width, height))))
    assert PLAIN.pixels(picture, (left, top, right, bottom), True).shape == (3, 32, 32)
