"""The hosting image's server on a real archive: what a client of the endpoint gets."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import inference
import numpy as np
import pytest
from PIL import Image

from local import hosting

pytestmark = pytest.mark.skipif(
    not hosting.PYTHON.exists(), reason="the hosting environment .venv-hosting is not set up"
)


@pytest.fixture(scope="module")
def server(trained, tmp_path_factory) -> Iterator[hosting.EndpointHost]:
    host = hosting.EndpointHost(trained.archive, tmp_path_factory.mktemp("state"))
    host.start()
    yield host
    host.stop()


@pytest.fixture(scope="module")
def torch_model(model_folder):
    return inference.load_torch(model_folder)


def picture(mode: str = "RGB", file_format: str = "PNG", **options: object) -> bytes:
    x, y = np.meshgrid(np.linspace(0, 255, 90), np.linspace(0, 255, 60))
    buffer = io.BytesIO()
    image = Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))
    image.convert(mode).save(buffer, file_format, **options)
    return buffer.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return picture("RGB", "JPEG", exif=exif)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        pytest.param(picture("RGB", "JPEG"), "image/jpeg", id="JPEG"),
        pytest.param(picture("L"), "image/png", id="greyscale"),
        pytest.param(picture("P"), "image/png", id="palette"),
        pytest.param(picture("RGBA"), "application/x-image", id="RGBA"),
        pytest.param(picture("CMYK", "JPEG"), "image/jpeg", id="CMYK"),
        pytest.param(turned(), "image/jpeg", id="EXIF-rotated"),
    ],
)
def test_the_servers_logits_are_torchs(server, torch_model, body, content_type):
    status, headers, answer = server.invoke(body, content_type)
    assert (status, headers["content-type"]) == (200, "application/json"), answer
    expected = inference.predict_fn(inference.input_fn(body, content_type), torch_model).logits
    np.testing.assert_allclose(json.loads(answer), expected, atol=1e-3)


def test_top_k_comes_with_labels(server, torch_model):
    status, headers, answer = server.invoke(picture(), "image/png", "application/json;top_k=2")
    assert (status, headers["content-type"]) == (200, "application/json")
    prediction = inference.predict_fn(inference.input_fn(picture(), "image/png"), torch_model)
    (expected,) = inference.most_likely(prediction, 2)
    (actual,) = json.loads(answer)
    assert [item["label"] for item in actual] == [item["label"] for item in expected]
    np.testing.assert_allclose(
        [item["probability"] for item in actual], [item["probability"] for item in expected], atol=1e-3
    )


@pytest.mark.parametrize("accept", ["", "*/*"])
def test_json_is_what_comes_when_anything_may(server, accept):
    status, headers, _ = server.invoke(picture(), "image/png", accept)
    assert (status, headers["content-type"]) == (200, "application/json")


@pytest.mark.parametrize(
    ("status", "code", "arguments"),
    [
        pytest.param(400, "bad_request", (b"no picture", "image/png"), id="no picture"),
        pytest.param(400, "bad_request", (picture()[:-100], "image/png"), id="cut short"),
        pytest.param(400, "bad_request", (picture(), "image/png", "application/json;top_k=0"), id="bad top_k"),
        pytest.param(406, "not_acceptable", (picture(), "image/png", "text/csv"), id="unsupported answer"),
        pytest.param(415, "unsupported_media_type", (picture(), "image/tiff"), id="unsupported picture type"),
        pytest.param(413, "request_entity_too_large", (b"\0" * 7_000_000, "image/png"), id="beyond the limit"),
    ],
)
def test_the_clients_mistakes_are_named_in_a_short_answer_and_the_server_goes_on(server, status, code, arguments):
    answered, headers, body = server.invoke(*arguments)
    assert (answered, headers["content-type"]) == (status, "application/json")
    error = json.loads(body)["error"]
    assert error["code"] == code and error["message"] and "\n" not in error["message"] and len(body) < 1000
    assert server.invoke(picture(), "image/png")[0] == 200
