"""Hostile pictures against the real server: a front, one worker, the archive's inference.py under ONNX Runtime.

The network is the mean of each colour, so that what an answer should be is known without training one.
"""

from __future__ import annotations

import base64
import io
import json
import random
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from classifier import archive
from onnx import TensorProto, helper
from PIL import Image

from local import hosting

pytestmark = pytest.mark.skipif(
    not hosting.PYTHON.exists(), reason="the hosting environment .venv-hosting is not set up"
)
RED, BLUE = (250, 60, 10), (10, 60, 250)
SIZE = (60, 40)
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MEGABYTE = 1024 * 1024
# glibc gives freed memory back at once, so that what a process holds is what it uses.
PROMPT_ALLOCATOR = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}


def colour_archive(folder: Path) -> Path:
    """An archive whose logits are a picture's mean red, green and blue, each in 0..1."""
    shapes = {"pixels": ["N", 3, 32, 32], "logits": ["N", 3]}
    pixels, logits = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in shapes)
    nodes = [
        helper.make_node("GlobalAveragePool", ["pixels"], ["means"]),
        helper.make_node("Flatten", ["means"], ["logits"]),
    ]
    graph = helper.make_graph(nodes, "colours", [pixels], [logits])
    model = folder / "model"
    model.mkdir()
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), model / "model.onnx")
    description = {"image_size": 32, "resize_size": 32, "mean": [0] * 3, "std": [1] * 3, "labels": ["r", "g", "b"]}
    (model / "model.json").write_text(json.dumps(description))
    archive.complete_model_folder(model, {})
    archive.pack(model, folder / "model.tar.gz")
    return folder / "model.tar.gz"


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[hosting.EndpointHost]:
    folder = tmp_path_factory.mktemp("colours")
    host = hosting.EndpointHost(colour_archive(folder), folder / "state", PROMPT_ALLOCATOR)
    host.start()
    yield host
    host.stop()


def worker(server: hosting.EndpointHost) -> int:
    """The process id of the one worker."""
    [found] = [pid for pid in server.process.members() if b"worker.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return found


def resident_bytes(pid: int, what: str = "VmRSS") -> int:
    """What the process holds now; of VmHWM, the most it ever held."""
    return int(Path(f"/proc/{pid}/status").read_text().split(f"{what}:")[1].split()[0]) * 1024


# Pictures -------------------------------------------------------------------------------------------------------------


def encoded(image: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def plain(mode: str = "RGB", colour: tuple[int, ...] = RED) -> Image.Image:
    return Image.new("RGB", SIZE, colour).convert(mode)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour_type: int, rows: bytes, *ancillary: bytes) -> bytes:
    """A PNG made by hand, of kinds that Pillow does not write."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return PNG_SIGNATURE + header + b"".join(ancillary) + pixels


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(plain(), "JPEG", quality=95, exif=exif)


def with_zip(picture: bytes) -> bytes:
    """A picture to who reads from the front, an archive to who reads from the end."""
    buffer = io.BytesIO(picture)
    with zipfile.ZipFile(buffer, "a") as file:
        file.writestr("code/inference.py", "raise SystemExit")
    return buffer.getvalue()


def jpeg_of_size(width: int, height: int) -> bytes:
    """A JPEG of few pixels whose header says otherwise."""
    data = bytearray(encoded(plain(), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


ROW16 = b"\0" + struct.pack(">HHH", *(value << 8 for value in RED)) * SIZE[0]
TEXT_BOMB = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(64 * MEGABYTE)))
PROFILE_BOMB = chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(64 * MEGABYTE)))
FRAMES = {"save_all": True, "append_images": [plain(colour=BLUE)], "duration": 100}
JPEG, PNG = encoded(plain(), "JPEG", quality=95), encoded(plain())
NOISE = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)), "JPEG")

ANSWERED = {
    "JPEG": JPEG,
    "PNG": PNG,
    "PNG that is called a JPEG": PNG,
    "WebP": encoded(plain(), "WEBP", lossless=True),
    "BMP": encoded(plain(), "BMP"),
    "CMYK": encoded(plain("CMYK"), "JPEG", quality=95),
    "palette": encoded(plain("P")),
    "palette with a transparent entry": encoded(plain("P"), transparency=255),
    "two colours": encoded(plain().quantize(2)),
    "16-bit RGB": png(*SIZE, 16, 2, ROW16 * SIZE[1]),
    "RGBA": encoded(plain("RGBA")),
    "animated GIF": encoded(plain(), "GIF", **FRAMES),
    "animated PNG": encoded(plain(), **FRAMES),
    "animated WebP": encoded(plain(), "WEBP", lossless=True, **FRAMES),
    **{f"EXIF orientation {number}": turned(number) for number in range(10)},
    "broken EXIF": encoded(plain(), "JPEG", quality=95, exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff"),
    "polyglot: JPEG and zip": with_zip(JPEG),
    "polyglot: PNG and zip": with_zip(PNG),
    "polyglot: GIF and script": encoded(plain(), "GIF") + b"*/=1;alert(1)//",
    "polyglot: PNG and page": PNG + b"<script>alert(1)</script>",
    "two JPEGs": JPEG + encoded(plain(colour=BLUE), "JPEG"),
}
GREY = {
    "greyscale": encoded(plain("L")),
    "16-bit greyscale": encoded(Image.fromarray(np.full(SIZE, 30_000, np.uint16))),
    "greyscale JPEG": encoded(plain("L"), "JPEG"),
    "bilevel": encoded(plain("1")),
    "one pixel": encoded(Image.new("L", (1, 1), 90)),
    "one pixel in height": encoded(Image.new("L", (60_000, 1), 90)),
}
REFUSED = {
    "nothing": (400, b""),
    "text": (400, b"no picture"),
    "truncated JPEG": (400, NOISE[: len(NOISE) // 2]),
    "truncated JPEG header": (400, JPEG[:20]),
    "truncated PNG": (400, PNG[:-30]),
    "truncated PNG header": (400, PNG[:20]),
    "truncated GIF": (400, ANSWERED["animated GIF"][:20]),
    "PNG of 14,000 x 14,000": (413, encoded(Image.new("1", (14_000, 14_000)))),
    "PNG that says 2 thousand million each way": (413, png(2**31 - 1, 2**31 - 1, 8, 2, b"")),
    "PNG that says nothing each way": (400, png(0, 0, 8, 2, b"")),
    "JPEG that says 65,000 each way": (413, jpeg_of_size(65_000, 65_000)),
    "GIF that says 65,535 each way": (413, b"GIF89a\xff\xff\xff\xff\0\0\0" + ANSWERED["animated GIF"][13:]),
    "TIFF that is called a PNG": (400, encoded(plain(), "TIFF")),
    "icon that is called a PNG": (400, encoded(plain(), "ICO")),
    "PPM that is called a PNG": (400, encoded(plain(), "PPM")),
    "PostScript, for which Ghostscript would be run": (400, encoded(plain(), "EPS")),
    "PDF that holds a JPEG": (400, encoded(plain(), "PDF")),
    "SVG": (400, b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://169.254.169.254/"/></svg>'),
    "polyglot: page, then JPEG": (400, b"<html>" + JPEG),
    "polyglot: program, then PNG": (400, b"MZ\x90\0" + PNG),
    "polyglot: pickle, then JPEG": (400, b"\x80\x04cposix\nsystem\n" + JPEG),
}


def mean_colour(server: hosting.EndpointHost, picture: bytes, content_type: str = "image/jpeg") -> list[float]:
    status, _, body = server.invoke(picture, content_type)
    assert status == 200, body
    [colour] = json.loads(body)
    return colour


@pytest.mark.parametrize("name", ANSWERED)
def test_a_strange_picture_is_answered_as_what_it_shows(name, server):
    expected = [value / 255 for value in RED]
    assert mean_colour(server, ANSWERED[name]) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("name", GREY)
def test_a_grey_picture_is_as_red_as_it_is_blue(name, server):
    red, green, blue = mean_colour(server, GREY[name])
    assert 0.2 < red < 0.6 and red == pytest.approx(green) == pytest.approx(blue)


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_picture_is_refused_and_the_worker_lives(name, server):
    expected, picture = REFUSED[name]
    pid = worker(server)
    status, headers, body = server.invoke(picture, "image/png")
    assert (status, headers["content-type"]) == (expected, "application/json"), body
    assert json.loads(body)["error"]["message"] and len(body) < 1000
    assert mean_colour(server, PNG)[0] > 0.9
    assert worker(server) == pid


@pytest.mark.parametrize("bomb", [TEXT_BOMB, PROFILE_BOMB], ids=["text", "colour profile"])
def test_what_a_picture_carries_beside_its_pixels_does_not_inflate(bomb, server):
    rows = (b"\0" + bytes(RED) * SIZE[0]) * SIZE[1]
    assert mean_colour(server, png(*SIZE, 8, 2, rows))[0] > 0.9
    before = resident_bytes(worker(server), "VmHWM")
    status, _, body = server.invoke(png(*SIZE, 8, 2, rows, bomb), "image/png")
    assert status in (200, 400), body
    assert resident_bytes(worker(server), "VmHWM") < before + 16 * MEGABYTE


# Fuzz -----------------------------------------------------------------------------------------------------------------

REQUESTS = 10_000
SEEDS = [
    NOISE,
    *ANSWERED.values(),
    *GREY.values(),
    *(picture for _, picture in REFUSED.values() if len(picture) < 9999),
]
JSON, JSON_LINES = "application/json", "application/jsonlines"
CONTENT_TYPES = [*["image/jpeg", "image/png", "application/x-image"] * 6, *[JSON, JSON_LINES] * 3, "", "text/\xe9"]
ACCEPTS = [*[JSON, f"{JSON};top_k=2", JSON_LINES, "*/*"] * 4, "text/csv", f"{JSON};top_k=\xff"]


def mutated(rng: random.Random, body: bytes) -> bytes:
    """A body some of whose bytes are changed, put in, taken out, or come from another picture."""
    data = bytearray(body)
    for _ in range(rng.choice((0, 1, 1, 2, 4, 16))):
        # Headers, where decoders decide what to do, are short: half of the changes are among the first bytes.
        place = rng.randrange(min(len(data), rng.choice((64, 10**6))) + 1)
        length = rng.choice((1, 1, 1, 2, 4, 40))
        match rng.randrange(4):
            case 0:
                data[place : place + length] = rng.randbytes(length)
            case 1:
                data[place:place] = rng.choice((b"\0", b"\xff", rng.randbytes(1))) * length
            case 2:
                del data[place : place + length]
            case 3:
                other = rng.choice(SEEDS)
                start = rng.randrange(len(other) + 1)
                data[place : place + length] = other[start : start + length]
    return bytes(data[: rng.randrange(len(data) + 1)] if rng.random() < 0.1 else data)


def request(rng: random.Random) -> tuple[bytes, str, str]:
    """A body, mostly a mutated picture, alone or in JSON that may be mutated too; a Content-Type; an Accept."""
    content_type = rng.choice(CONTENT_TYPES)
    pictures = [mutated(rng, rng.choice(SEEDS)) for _ in range(rng.choice((1, 1, 2)))]
    instances = [{"b64": base64.b64encode(picture).decode()} for picture in pictures]
    body = {
        JSON: json.dumps({"instances": instances}).encode(),
        JSON_LINES: b"".join(json.dumps(instance).encode() + b"\n" for instance in instances),
    }.get(content_type, pictures[0])
    return mutated(rng, body) if rng.random() < 0.3 else body, content_type, rng.choice(ACCEPTS)


@pytest.mark.slow
def test_the_worker_outlives_fuzzed_requests_in_the_same_memory(server, record_property):
    """Once warm it gains less than 200 bytes a request, of bodies of thousands."""
    rng, pid = random.Random(5), worker(server)
    statuses, warm = Counter(), 0
    for number in range(REQUESTS):
        status, _, body = server.invoke(*request(rng))
        assert status in (200, 400, 406, 413, 415), (number, body)
        if status != 200:
            assert json.loads(body).keys() == {"error"}
        statuses[status] += 1
        if number == REQUESTS // 10:
            warm = resident_bytes(pid)
    assert resident_bytes(pid) < warm + 2 * MEGABYTE
    assert worker(server) == pid
    assert mean_colour(server, PNG)[0] > 0.9
    assert min(statuses[status] for status in (200, 400, 406, 413, 415)) > 0  # The fuzz reaches into every corner.
    record_property("fuzzed_inputs", REQUESTS)
