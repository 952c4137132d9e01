"""The toolkit's four functions, called as the toolkit calls them, under both runtimes."""

from __future__ import annotations

import base64
import io
import json
import math
import subprocess
import sys
from pathlib import Path
from unittest import mock

import inference
import numpy as np
import onnxruntime
import pytest
import torch
from classifier import preprocessing
from classifier.preprocessing import EncodedPicture
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
    "animation": encoded(photograph(), "GIF", save_all=True, append_images=[Image.new("RGB", (90, 60), "red")]),
}
JSON, JSON_LINES = "application/json", "application/jsonlines"


def in_one_body(pictures: list[bytes], content_type: str) -> bytes:
    encoded = [{"b64": base64.b64encode(picture).decode()} for picture in pictures]
    if content_type == JSON:
        return json.dumps({"instances": encoded}).encode()
    return "".join(json.dumps(line) + "\n" for line in encoded).encode()


@pytest.fixture(scope="module")
def onnx_model(model_folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
        return inference.load_onnx(model_folder)


@pytest.fixture(scope="module")
def torch_model(model_folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        return inference.load_torch(model_folder)


def logits(model, data: bytes, content_type: str = "image/png") -> np.ndarray:
    return inference.predict_fn(inference.input_fn(bytearray(data), content_type), model).logits


@pytest.mark.parametrize("name", PICTURES)
def test_both_runtimes_agree(name, onnx_model, torch_model):
    one, other = logits(onnx_model, PICTURES[name]), logits(torch_model, PICTURES[name])
    assert one.shape == other.shape == (1, len(onnx_model.labels))
    assert one.dtype == np.float32
    np.testing.assert_allclose(one, other, atol=1e-3)


def test_exif_orientation_is_honoured(onnx_model):
    upright = logits(onnx_model, encoded(photograph(), "JPEG", quality=95))
    np.testing.assert_allclose(logits(onnx_model, rotated_by_exif()), upright, atol=0.05)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("greyscale", photograph().convert("L").convert("RGB")),
        ("bilevel", photograph().convert("1").convert("RGB")),
        ("palette", photograph().convert("P").convert("RGB")),
        ("RGBA", photograph()),
        ("CMYK", photograph()),
        ("16-bit greyscale", Image.fromarray((np.arange(5400).reshape(60, 90) * 12 // 256).astype(np.uint8))),
        ("animation", Image.open(io.BytesIO(PICTURES["animation"])).convert("RGB")),
    ],
)
def test_a_picture_of_any_kind_is_answered_as_what_it_looks_like(name, expected, onnx_model):
    # JPEG is lossy, and this network sharp.
    tolerance = 0.15 if name == "CMYK" else 1e-5
    answer = logits(onnx_model, PICTURES[name])
    np.testing.assert_allclose(answer, logits(onnx_model, encoded(expected)), atol=tolerance)


def test_transparency_is_answered_as_white(onnx_model):
    hidden = Image.new("RGBA", (90, 60), (255, 0, 0, 0))
    np.testing.assert_array_equal(
        logits(onnx_model, encoded(hidden)), logits(onnx_model, encoded(Image.new("RGB", (90, 60), "white")))
    )


def test_a_telephones_jpeg_is_decoded_at_a_scale(onnx_model):
    """Of 12 megapixels one in 64 is decoded, and the answer hardly moves."""
    large = encoded(photograph(400, 300).resize((4000, 3000)), "JPEG", quality=90)
    with mock.patch.object(EncodedPicture, "decode", autospec=True, side_effect=EncodedPicture.decode) as decode:
        scaled = logits(onnx_model, large)
    assert decode.call_args.args[1] == 8
    with mock.patch.object(preprocessing, "JPEG_REDUCTIONS", ()):
        np.testing.assert_allclose(scaled, logits(onnx_model, large), atol=0.1)


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


def test_a_loaded_model_takes_little_more_memory_than_its_weights(model_folder):
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(model_folder / 'code')!r})\n"
        "import inference, onnxruntime\n"
        "pages = lambda: int(open('/proc/self/statm').read().split()[1])\n"
        "before = pages()\n"
        f"model = inference.model_fn({str(model_folder)!r})\n"
        "print((pages() - before) * 4096)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2 * (model_folder / "model.onnx").stat().st_size


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
    (picture,) = inference.input_fn(PICTURES["RGB JPEG"], content_type).values()
    assert picture.size == (90, 60)


@pytest.mark.parametrize("content_type", [None, "", "text/json", "text/csv", "image/tiff", "x" * 5000])
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


@pytest.mark.parametrize("content_type", [JSON, JSON_LINES])
def test_several_pictures_are_answered_in_their_order(content_type, onnx_model):
    pictures = [PICTURES[name] for name in ("RGB JPEG", "16-bit greyscale", "one pixel")]
    together = logits(onnx_model, in_one_body(pictures, content_type), content_type)
    one_by_one = np.concatenate([logits(onnx_model, picture) for picture in pictures])
    np.testing.assert_allclose(together, one_by_one, atol=1e-4)


def test_several_pictures_share_a_forward_pass_where_the_model_gains_from_it(onnx_model):
    sizes = []

    def forward(pixels: np.ndarray) -> np.ndarray:
        sizes.append(len(pixels))
        return onnx_model.forward(pixels)

    body = in_one_body([PICTURES["palette"]] * 7, JSON)
    assert logits(onnx_model._replace(forward=forward, batch_size=3), body, JSON).shape == (7, 3)
    assert sizes == [3, 3, 1]


def test_the_toolkit_may_hand_over_json_as_text():
    text = in_one_body([PICTURES["palette"]], JSON).decode()
    assert list(inference.input_fn(text, JSON)) == ["instances[0]"]


def test_empty_lines_are_no_pictures():
    body = b"\n".join([b"", in_one_body([PICTURES["palette"]], JSON_LINES), b"  \r", b""])
    assert list(inference.input_fn(body, JSON_LINES)) == ["line 2"]


@pytest.mark.parametrize(
    ("content_type", "body", "message"),
    [
        (JSON, b"", "the body is not JSON"),
        (JSON, b"\xff\xfe\xfd", "the body is not JSON"),
        (JSON, b"[" * 100_000, "the body is not JSON"),
        (JSON, b"{}", "send"),
        (JSON, b'{"instances": {"b64": ""}}', "the body is not {"),
        (JSON, b'{"instances": []}', "the body has no picture"),
        (JSON, b'{"instances": ["AAAA"]}', "instances[0] is not {"),
        (JSON, b'{"instances": [{"b64": 7}]}', "instances[0] is not {"),
        (JSON, b'{"instances": [{"b64": "A A="}]}', "b64 of instances[0] is not base64"),
        (JSON, b'{"instances": [{"b64": "\\ud800"}]}', "b64 of instances[0] is not base64"),
        (JSON, in_one_body([PICTURES["palette"], b"no picture"], JSON), "instances[1] of 10 bytes cannot be read"),
        (JSON_LINES, b"", "the body has no picture"),
        (JSON_LINES, in_one_body([PICTURES["palette"]], JSON_LINES) + b"{", "line 2 is not JSON"),
        (JSON_LINES, in_one_body([PICTURES["palette"], b""], JSON_LINES), "line 2 of 0 bytes cannot be read"),
    ],
)
def test_a_bad_list_of_pictures_is_a_bad_request_that_names_the_place(content_type, body, message):
    assert message in refused(400, inference.input_fn, body, content_type)


def test_a_picture_with_damaged_pixels_is_named_among_others(onnx_model):
    body = in_one_body([PICTURES["palette"], PICTURES["RGBA"][:-40]], JSON)
    assert "instances[1]" in refused(400, logits, onnx_model, body, JSON)


@pytest.mark.parametrize("content_type", [JSON, JSON_LINES])
def test_more_than_64_pictures_are_refused(content_type):
    assert len(inference.input_fn(in_one_body([PICTURES["one pixel"]] * 64, content_type), content_type)) == 64
    message = refused(413, inference.input_fn, in_one_body([PICTURES["one pixel"]] * 65, content_type), content_type)
    assert "more than 64 pictures" in message


def test_one_picture_of_a_list_may_be_too_large():
    bomb = encoded(Image.new("1", (8_000, 8_000)))
    body = in_one_body([PICTURES["palette"], bomb], JSON)
    assert "instances[1]" in refused(413, inference.input_fn, body, JSON)


def test_of_many_pictures_one_at_a_time_is_held_decoded(model_folder):
    """8 PNGs of 12 megapixels, at least 48 MB each, are answered in far less than their sum."""
    body = in_one_body([encoded(Image.new("1", (4000, 3000)))] * 8, JSON)
    code = (
        "import resource, sys\n"
        f"sys.path.insert(0, {str(model_folder / 'code')!r})\n"
        "import inference\n"
        f"model = inference.model_fn({str(model_folder)!r})\n"
        "body, peak = sys.stdin.buffer.read(), lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "assert len(inference.predict_fn(inference.input_fn(body, 'application/json'), model).logits) == 8\n"
        "print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], input=body, capture_output=True, check=True)
    assert int(done.stdout) < 150_000  # KiB


def damaged(data: st.DataObject, body: bytes) -> bytes:
    """A body with some bytes changed, and perhaps cut short."""
    body = bytearray(body)
    for _ in range(data.draw(st.integers(0, 4)) if body else 0):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    return bytes(body[: data.draw(st.integers(0, len(body)))] if data.draw(st.booleans()) else body)


BODIES = {
    "image/png": st.sampled_from(list(PICTURES.values())),
    JSON: st.lists(st.sampled_from(list(PICTURES.values())), max_size=3).map(lambda some: in_one_body(some, JSON)),
    JSON_LINES: st.lists(st.sampled_from(list(PICTURES.values())), max_size=3).map(
        lambda some: in_one_body(some, JSON_LINES)
    ),
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["instances", "b64", "x"]), inner),
    max_leaves=8,
)


@settings(max_examples=250, deadline=None)
@given(data=st.data(), content_type=st.sampled_from(list(BODIES)))
def test_any_body_is_classified_or_the_clients_mistake(onnx_model, data, content_type):
    """Random bytes, any JSON, and real requests cut short or with bytes changed."""
    any_json = VALUES.map(lambda value: json.dumps(value).encode())
    body = damaged(data, data.draw(st.one_of(st.binary(max_size=300), any_json, BODIES[content_type])))
    try:
        answer = logits(onnx_model, body, content_type)
    except inference.RequestError as error:
        assert error.status_code in (400, 413)
        assert len(error.message) < 400
    else:
        assert answer.ndim == 2 and answer.shape[1] == 3 and np.isfinite(answer).all()


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


@pytest.mark.parametrize("accept", ["application/jsonlines", "image/png, Application/JSONLines;q=0.5, */*"])
def test_json_lines_is_a_line_for_each_picture(accept):
    body, content_type = inference.output_fn(PREDICTION, accept)
    assert content_type == "application/jsonlines"
    assert [json.loads(line) for line in body.splitlines()] == [[1, 3, -2], [0, 0, 700]]


def test_json_lines_with_top_k_is_what_json_has():
    lines, _ = inference.output_fn(PREDICTION, "application/jsonlines;top_k=2")
    whole, _ = inference.output_fn(PREDICTION, "application/json;top_k=2")
    assert [json.loads(line) for line in lines.splitlines()] == json.loads(whole)


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
@given(st.text(max_size=40) | st.from_regex(r"application/json(lines)?;[ a-z_=0-9;,\"]{0,20}", fullmatch=True))
def test_any_accept_gets_json_or_the_clients_mistake(accept):
    try:
        body, content_type = inference.output_fn(PREDICTION, accept)
        assert content_type in (JSON, JSON_LINES)
        assert [json.loads(line) for line in body.splitlines()]
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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that torch can use")
def test_torch_on_a_gpu_answers_as_onnx_runtime_does(model_folder, onnx_model):
    model = inference.load_torch(model_folder)
    assert model.batch_size == inference.MAX_PICTURES
    body = in_one_body(list(PICTURES.values()), JSON)
    # GPUs multiply float32 with fewer bits.
    np.testing.assert_allclose(logits(model, body, JSON), logits(onnx_model, body, JSON), atol=0.05)


@pytest.mark.skipif(
    inference.CUDA not in onnxruntime.get_available_providers() or not inference.GPU_DEVICE.exists(),
    reason="there is no GPU, or ONNX Runtime was built without CUDA",
)
def test_onnx_runtime_on_a_gpu_answers_as_torch_does(model_folder, torch_model):
    model = inference.load_onnx(model_folder)
    body = in_one_body(list(PICTURES.values()), JSON)
    np.testing.assert_allclose(logits(model, body, JSON), logits(torch_model, body, JSON), atol=0.05)


@pytest.mark.parametrize(
    ("installed", "gpu", "torch_sees_it", "providers", "expected"),
    [
        ({"onnxruntime", "torch"}, False, False, [], True),
        ({"onnxruntime"}, True, False, [], True),
        ({"onnxruntime", "torch"}, True, True, [], False),
        ({"onnxruntime", "torch"}, True, True, [inference.CUDA], True),
        ({"onnxruntime", "torch"}, True, False, [], True),
        ({"torch"}, False, False, [], False),
    ],
)
def test_the_runtime_that_has_the_gpu_serves(monkeypatch, installed, gpu, torch_sees_it, providers, expected):
    monkeypatch.setattr(inference, "find_spec", lambda name: name in installed or None)
    monkeypatch.setattr(inference, "GPU_DEVICE", Path("/dev/null" if gpu else "/dev/no such device"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: torch_sees_it)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*providers, "CPUExecutionProvider"])
    assert inference.prefers_onnx() is expected
