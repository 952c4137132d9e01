"""The toolkit's four functions, called as the toolkit calls them, under both runtimes."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys

import inference
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image


def photograph(width: int = 90, height: int = 60) -> Image.Image:
    """A picture whose halves differ, so that a turned one gives other logits."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))


def encoded(image: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def rotated_by_exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: turn by 90 degrees clockwise to see it upright.
    return encoded(photograph().transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, exif=exif)


PICTURES = {
    "RGB JPEG": encoded(photograph(), "JPEG"),
    "greyscale": encoded(photograph().convert("L")),
    "bilevel": encoded(photograph().convert("1")),
    "palette": encoded(photograph().convert("P")),
    "RGBA": encoded(photograph().convert("RGBA")),
    "CMYK": encoded(photograph().convert("CMYK"), "JPEG"),
    "16-bit greyscale": encoded(Image.fromarray(np.arange(5400, dtype=np.uint16).reshape(60, 90) * 12)),
    "EXIF-rotated": rotated_by_exif(),
    "one pixel": encoded(photograph(1, 1)),
}


@pytest.fixture(scope="module")
def onnx_model(model_folder):
    return inference.load_onnx(model_folder)


@pytest.fixture(scope="module")
def torch_model(model_folder):
    return inference.load_torch(model_folder)


def logits(model, data: bytes) -> np.ndarray:
    return inference.predict_fn(inference.input_fn(bytearray(data), "image/png"), model).logits


@pytest.mark.parametrize("name", PICTURES)
def test_both_runtimes_agree(name, onnx_model, torch_model):
    onnx, torch = logits(onnx_model, PICTURES[name]), logits(torch_model, PICTURES[name])
    assert onnx.shape == torch.shape == (1, len(onnx_model.labels))
    assert onnx.dtype == np.float32
    np.testing.assert_allclose(onnx, torch, atol=1e-3)


def test_exif_orientation_is_honoured(onnx_model):
    upright = logits(onnx_model, encoded(photograph(), "JPEG", quality=95))
    np.testing.assert_allclose(logits(onnx_model, rotated_by_exif()), upright, atol=0.05)


def test_different_pictures_get_different_logits(onnx_model):
    assert not np.allclose(logits(onnx_model, PICTURES["RGB JPEG"]), logits(onnx_model, PICTURES["16-bit greyscale"]))


def test_model_fn_prefers_onnx_runtime_and_needs_no_torch(model_folder):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        f"sys.path.insert(0, {str(model_folder / 'code')!r})\n"
        "import inference\n"
        f"print(len(inference.model_fn({str(model_folder)!r}).labels))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(json.loads((model_folder / "model.json").read_text())["labels"])


def test_model_fn_takes_torch_where_there_is_no_onnx_runtime(model_folder, monkeypatch, onnx_model):
    monkeypatch.setattr(inference, "find_spec", lambda name: None)
    monkeypatch.setattr(inference, "load_onnx", lambda folder: pytest.fail("ONNX Runtime is not installed"))
    model = inference.model_fn(str(model_folder))
    np.testing.assert_allclose(logits(model, PICTURES["palette"]), logits(onnx_model, PICTURES["palette"]), atol=1e-3)


def test_model_fn_refuses_labels_that_do_not_fit(model_folder, tmp_path):
    for path in model_folder.glob("model.*"):
        (tmp_path / path.name).symlink_to(path)
    description = json.loads((model_folder / "model.json").read_text())
    (tmp_path / "model.json").unlink()
    (tmp_path / "model.json").write_text(json.dumps(description | {"labels": [*description["labels"], "one more"]}))
    with pytest.raises(ValueError, match="labels"):
        inference.model_fn(str(tmp_path))


def refused(status: int, call, *arguments) -> str:
    """The message of the call's refusal, which must carry this status."""
    with pytest.raises(inference.RequestError) as caught:
        call(*arguments)
    assert caught.value.status_code == status
    assert caught.value.phrase
    assert len(caught.value.message) < 400
    return caught.value.message


@pytest.mark.parametrize("content_type", ["image/jpeg", "IMAGE/PNG", "application/x-image", "image/jpeg; name=a.jpg"])
def test_supported_content_types(content_type):
    assert inference.input_fn(PICTURES["RGB JPEG"], content_type).size == (90, 60)


@pytest.mark.parametrize("content_type", [None, "", "application/json", "text/csv", "image/tiff", "x" * 5000])
def test_another_content_type_is_unsupported(content_type):
    message = refused(415, inference.input_fn, "{}", content_type)
    assert "application/x-image" in message


@pytest.mark.parametrize("body", [b"", b"no picture", PICTURES["RGB JPEG"][:300], PICTURES["RGBA"][:80]])
def test_a_corrupt_picture_is_a_bad_request(body, onnx_model):
    assert f"{len(body)} bytes" in refused(400, logits, onnx_model, body)


@pytest.mark.parametrize("edge", [8_000, 14_000])
def test_a_picture_with_too_many_pixels_is_refused(edge):
    bomb = encoded(Image.new("1", (edge, edge)))
    assert len(bomb) < 50_000
    assert "pixels" in refused(413, inference.input_fn, bomb, "image/png")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_body_is_classified_or_the_clients_mistake(onnx_model, data):
    """Random bytes, and real pictures cut short or with bytes changed."""
    body = bytearray(data.draw(st.one_of(st.binary(max_size=300), st.sampled_from(list(PICTURES.values())))))
    for _ in range(data.draw(st.integers(0, 4)) if body else 0):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    body = body[: data.draw(st.integers(0, len(body)))] if data.draw(st.booleans()) else body
    try:
        assert np.isfinite(logits(onnx_model, body)).all()
    except inference.RequestError as error:
        assert error.status_code in (400, 413)


PREDICTION = inference.Prediction(np.float32([[1, 3, -2], [0, 0, 700]]), ["cat", "dog", "owl"])


@pytest.mark.parametrize(
    "accept",
    [
        "application/json",
        "Application/JSON; charset=utf-8",
        "*/*",
        "application/*;q=0.8",
        "text/html, application/json",
    ],
)
def test_json_is_the_logits(accept):
    body, content_type = inference.output_fn(PREDICTION, accept)
    assert content_type == "application/json"
    assert json.loads(body) == [[1, 3, -2], [0, 0, 700]]


def test_top_k_is_labels_with_their_probabilities():
    body, content_type = inference.output_fn(PREDICTION, "application/json; top_k=2")
    first, second = json.loads(body)
    assert content_type == "application/json"
    assert [answer["label"] for answer in first] == ["dog", "cat"]
    assert first[0]["probability"] == pytest.approx(math.exp(3) / (math.exp(1) + math.exp(3) + math.exp(-2)))
    assert [answer["label"] for answer in second] == ["owl", "cat"]
    assert second[0]["probability"] == pytest.approx(1)


def test_top_k_beyond_the_classes_is_all_of_them():
    first, _ = json.loads(inference.output_fn(PREDICTION, "application/json;top_k=99")[0])
    assert [answer["label"] for answer in first] == ["dog", "cat", "owl"]
    assert sum(answer["probability"] for answer in first) == pytest.approx(1)


@pytest.mark.parametrize("top_k", ["0", "-1", "", "two", "1.5", "1e3", "٣", "9" * 5000])
def test_a_bad_top_k_is_a_bad_request(top_k):
    assert "top_k" in refused(400, inference.output_fn, PREDICTION, f"application/json;top_k={top_k}")


@pytest.mark.parametrize("accept", ["text/csv", "application/x-npy", "image/*", "z" * 5000])
def test_an_answer_that_is_not_json_is_not_acceptable(accept):
    assert "application/json" in refused(406, inference.output_fn, PREDICTION, accept)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40) | st.from_regex(r"application/json;[ a-z_=0-9;,\"]{0,20}", fullmatch=True))
def test_any_accept_gets_json_or_the_clients_mistake(accept):
    try:
        json.loads(inference.output_fn(PREDICTION, accept)[0])
    except inference.RequestError as error:
        assert error.status_code in (400, 406)


@pytest.mark.parametrize("accept", ["application/json", "application/json;top_k=1"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_broken_model_is_an_error_and_not_invalid_json(bad, accept):
    broken = inference.Prediction(np.float32([[bad, 1, 1]]), PREDICTION.labels)
    with pytest.raises(ValueError) as caught:
        inference.output_fn(broken, accept)
    assert not isinstance(caught.value, inference.RequestError)


def test_threads_follow_the_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert inference.thread_count() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert inference.thread_count() == 1
