"""The functions SageMaker's inference toolkit calls: an encoded picture in, logits or the most likely labels out.

A request's body is one picture: Content-Type image/jpeg, image/png or application/x-image (any format that
classifier.preprocessing decodes). The answer to Accept: application/json is [[logit, ...]], one number a class in
the order of model.json's labels; to `application/json;top_k=3` it is [[{"label": ..., "probability": ...}, ...]],
most likely first.

The same file serves under ONNX Runtime (model.onnx) where that is installed, else under torch (model.safetensors),
so that one archive runs in a small image and in AWS's prebuilt PyTorch image. Nothing is unpickled or downloaded.
"""

import json
import os
from collections.abc import Callable
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from classifier.preprocessing import EncodedPicture, PictureError, PictureTooLargeError, Preprocessing

try:
    from sagemaker_inference.errors import BaseInferenceToolkitError as ToolkitError
except ImportError:  # Not behind the toolkit: an ordinary ValueError with the same fields.

    class ToolkitError(ValueError):
        def __init__(self, status_code: int, message: str, phrase: str):
            super().__init__(message)
            self.status_code, self.message, self.phrase = status_code, message, phrase


CONTENT_TYPES = ("image/jpeg", "image/png", "application/x-image")
JSON = "application/json"
ACCEPTED_AS_JSON = (JSON, "application/*", "*/*", "")


class RequestError(ToolkitError):
    """The client's mistake; the toolkit answers with its status instead of 500."""

    def __init__(self, status: HTTPStatus, message: str):
        super().__init__(status.value, message, status.phrase)


class Model(NamedTuple):
    """A loaded model. forward: float32 [N, 3, image_size, image_size] to float32 logits [N, len(labels)]."""

    preprocessing: Preprocessing
    labels: list[str]
    forward: Callable[[np.ndarray], np.ndarray]


class Prediction(NamedTuple):
    """float32 logits [N, len(labels)] and the classes' labels."""

    logits: np.ndarray
    labels: list[str]


def model_fn(model_dir: str) -> Model:
    """Load the unpacked archive and run it once, so that a broken one fails here and the first request is not slow.

    Raises ValueError where model.json and the network disagree on the number of classes.
    """
    load = load_onnx if find_spec("onnxruntime") else load_torch
    model = load(Path(model_dir))
    size = model.preprocessing.image_size
    classes = model.forward(np.zeros((1, 3, size, size), np.float32)).shape[1]
    if classes != len(model.labels):
        raise ValueError(f"{model_dir}: {len(model.labels)} labels in model.json for {classes} logits: pack it again")
    return model


def load_onnx(model_dir: Path) -> Model:
    """The model under ONNX Runtime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = thread_count()
    session = onnxruntime.InferenceSession(model_dir / "model.onnx", options, providers=["CPUExecutionProvider"])

    def forward(pixels: np.ndarray) -> np.ndarray:
        return session.run(["logits"], {"pixels": pixels})[0]

    description = json.loads((model_dir / "model.json").read_text())
    return Model(Preprocessing.from_json(description), description["labels"], forward)


def load_torch(model_dir: Path) -> Model:
    """The model under torch, on the CPU, from the weights of record."""
    import torch
    from classifier.network import load_model_folder

    torch.set_num_threads(thread_count())
    network, description = load_model_folder(model_dir)
    network = network.to(memory_format=torch.channels_last)

    def forward(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(pixels).to(memory_format=torch.channels_last)).numpy()

    return Model(Preprocessing.from_json(description), description["labels"], forward)


def thread_count() -> int:
    """Threads of one forward pass: OMP_NUM_THREADS, else 1, because the servers start a worker for each core."""
    return int(os.environ.get("OMP_NUM_THREADS") or 1)


def input_fn(input_data: bytes | bytearray, content_type: str | None) -> EncodedPicture:
    """Read a request's body as far as the picture's header.

    Raises RequestError: 415 for another content type, 413 for too many pixels, 400 for no readable picture.
    """
    media_type, _ = parse_media_type(content_type or "")
    if media_type not in CONTENT_TYPES:
        raise RequestError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Type {shortened(content_type)} is not supported: send {' or '.join(CONTENT_TYPES)}",
        )
    try:
        return EncodedPicture.open(bytes(input_data))
    except PictureTooLargeError as error:
        raise RequestError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the picture is too large: {error}: send a smaller one"
        ) from error
    except PictureError as error:
        raise unreadable(len(input_data), error) from error


def predict_fn(picture: EncodedPicture, model: Model) -> Prediction:
    """Decode one picture, as large as the model needs it, and classify it.

    Raises RequestError 400 where the pixels are damaged.
    """
    try:
        pixels = model.preprocessing.served(picture)
    except PictureError as error:
        raise unreadable(len(picture.data), error) from error
    return Prediction(model.forward(pixels[np.newaxis]), model.labels)


def unreadable(size: int, error: PictureError) -> RequestError:
    """The refusal of a body of `size` bytes."""
    return RequestError(
        HTTPStatus.BAD_REQUEST, f"the body of {size} bytes cannot be read: {error}: send one whole picture"
    )


def output_fn(prediction: Prediction, accept: str) -> tuple[str, str]:
    """The answer's body and content type.

    Raises RequestError: 406 for an Accept without JSON, 400 for a bad top_k. Raises ValueError for logits that are
    no finite numbers, which JSON cannot hold.
    """
    parameters = json_parameters(accept)
    if not np.isfinite(prediction.logits).all():
        raise ValueError("the model's logits are not all finite numbers: its weights are broken, train it again")
    if "top_k" in parameters:
        answer = most_likely(prediction, parse_top_k(parameters["top_k"]))
    else:
        answer = prediction.logits.tolist()
    return json.dumps(answer, allow_nan=False), JSON


def most_likely(prediction: Prediction, top_k: int) -> list[list[dict]]:
    """The top_k likeliest classes (all where there are fewer), for each picture, with their softmax probabilities."""
    logits = prediction.logits.astype(np.float64)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    # Stable, so that of two equal classes the first comes first every time.
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
    return [
        [{"label": prediction.labels[index], "probability": float(row[index])} for index in indices]
        for row, indices in zip(probabilities, order, strict=True)
    ]


def json_parameters(accept: str) -> dict[str, str]:
    """The parameters of the first media type in an Accept header that JSON satisfies; RequestError 406 where none."""
    for media_range in accept.split(","):
        media_type, parameters = parse_media_type(media_range)
        if media_type in ACCEPTED_AS_JSON:
            return parameters
    raise RequestError(
        HTTPStatus.NOT_ACCEPTABLE, f"Accept {shortened(accept)} is not supported: ask for {JSON} or {JSON};top_k=3"
    )


def parse_top_k(value: str) -> int:
    if not (value.isascii() and value.isdecimal() and 1 <= len(value) <= 9 and int(value) >= 1):
        raise RequestError(HTTPStatus.BAD_REQUEST, f"top_k={shortened(value)}: give a whole number from 1")
    return int(value)


def parse_media_type(header: str) -> tuple[str, dict[str, str]]:
    """`Application/JSON; top_k=3` to ("application/json", {"top_k": "3"})."""
    media_type, *rest = (part.strip() for part in header.split(";"))
    pairs = (part.partition("=") for part in rest if part)
    return media_type.lower(), {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}


def shortened(value: str | None, limit: int = 80) -> str:
    """A header's value, fit for an error message."""
    text = repr(value or "")
    return text if len(text) <= limit else text[:limit] + "..."
