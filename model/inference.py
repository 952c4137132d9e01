"""The functions SageMaker's inference toolkit calls: encoded pictures in, logits or the most likely labels out.

A request's body, by its Content-Type, is
    image/jpeg, image/png, application/x-image: one picture, in any format that classifier.preprocessing decodes;
    application/json: {"instances": [{"b64": "..."}, ...]}, each a picture's bytes as base64;
    application/jsonlines: {"b64": "..."} in each line.
The answer, by its Accept, is
    application/json: [[logit, ...], ...], a row a picture, a number a class in the order of model.json's labels;
    application/jsonlines: the same rows, each in a line of its own.
With the parameter top_k, as in `application/json;top_k=3`, a row is [{"label": ..., "probability": ...}, ...], most
likely first.

The same file serves under ONNX Runtime (model.onnx) where that is installed, else under torch (model.safetensors),
on a GPU where that runtime has one, so that one archive runs in a small image and in AWS's prebuilt PyTorch images.
Nothing is unpickled or downloaded.
"""

import base64
import ctypes
import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from http import HTTPStatus
from importlib.util import find_spec
from io import BytesIO
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


PICTURE_TYPES = ("image/jpeg", "image/png", "application/x-image")
JSON, JSON_LINES = "application/json", "application/jsonlines"
ACCEPTED = {JSON: JSON, JSON_LINES: JSON_LINES, "application/*": JSON, "*/*": JSON, "": JSON}
MAX_PICTURES = 64
CUDA = "CUDAExecutionProvider"
GPU_DEVICE = Path("/dev/nvidiactl")

# Of a request, by the place where each stands in the body: "the body", "instances[3]", "line 4".
Pictures = dict[str, EncodedPicture]


class RequestError(ToolkitError):
    """The client's mistake; the toolkit answers with its status instead of 500."""

    def __init__(self, status: HTTPStatus, message: str):
        super().__init__(status.value, message, status.phrase)


class Model(NamedTuple):
    """A loaded model. forward: float32 [N, 3, image_size, image_size] to float32 logits [N, len(labels)].

    batch_size: the largest N that is worth it. A CPU core is about as fast picture by picture, in less memory.
    """

    preprocessing: Preprocessing
    labels: list[str]
    forward: Callable[[np.ndarray], np.ndarray]
    batch_size: int = 1


class Prediction(NamedTuple):
    """float32 logits [N, len(labels)] and the classes' labels."""

    logits: np.ndarray
    labels: list[str]


def model_fn(model_dir: str) -> Model:
    """Load the unpacked archive and run it once, so that a broken one fails here and the first request is not slow.

    Raises ValueError where model.json and the network disagree on the number of classes.
    """
    load = load_onnx if prefers_onnx() else load_torch
    model = load(Path(model_dir))
    size = model.preprocessing.image_size
    classes = model.forward(np.zeros((1, 3, size, size), np.float32)).shape[1]
    if classes != len(model.labels):
        raise ValueError(f"{model_dir}: {len(model.labels)} labels in model.json for {classes} logits: pack it again")
    release_freed_memory()
    return model


def prefers_onnx() -> bool:
    """Whether ONNX Runtime serves: where it is installed, unless torch alone can use the GPU."""
    if not find_spec("onnxruntime"):
        return False
    # torch takes seconds to import: only where there is a GPU is it worth asking.
    if not (GPU_DEVICE.exists() and find_spec("torch")):
        return True
    import onnxruntime
    import torch

    return CUDA in onnxruntime.get_available_providers() or not torch.cuda.is_available()


def load_onnx(model_dir: Path) -> Model:
    """The model under ONNX Runtime, on a GPU where it has CUDA, else on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = thread_count()
    providers = ["CPUExecutionProvider"]
    if CUDA in onnxruntime.get_available_providers():
        # By default every new batch size would be answered after a long search for its fastest algorithm.
        providers.insert(0, (CUDA, {"cudnn_conv_algo_search": "HEURISTIC"}))
    session = onnxruntime.InferenceSession(model_dir / "model.onnx", options, providers=providers)

    def forward(pixels: np.ndarray) -> np.ndarray:
        return session.run(["logits"], {"pixels": pixels})[0]

    # Where the driver is missing, ONNX Runtime falls back to the CPU by itself.
    return described(model_dir, forward, on_gpu=CUDA in session.get_providers())


def load_torch(model_dir: Path) -> Model:
    """The model under torch, on a GPU where there is one, else on the CPU, from the weights of record."""
    import torch
    from classifier.network import load_model_folder

    torch.set_num_threads(thread_count())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = load_model_folder(model_dir)[0].to(device, memory_format=torch.channels_last)

    def forward(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            batch = torch.from_numpy(pixels).to(device, memory_format=torch.channels_last)
            return network(batch).cpu().numpy()

    return described(model_dir, forward, on_gpu=device.type == "cuda")


def described(model_dir: Path, forward: Callable[[np.ndarray], np.ndarray], on_gpu: bool) -> Model:
    """The model with what model.json says of it."""
    description = json.loads((model_dir / "model.json").read_text())
    batch_size = MAX_PICTURES if on_gpu else 1
    return Model(Preprocessing.from_json(description), description["labels"], forward, batch_size)


def release_freed_memory() -> None:
    """Give back to the system what loading needed, which glibc keeps: more than the weights once again."""
    with suppress(AttributeError, OSError):  # Another C library.
        ctypes.CDLL(None).malloc_trim(0)


def thread_count() -> int:
    """Threads of one forward pass: OMP_NUM_THREADS, else 1, because the servers start a worker for each core."""
    return int(os.environ.get("OMP_NUM_THREADS") or 1)


def input_fn(input_data: bytes | bytearray | str, content_type: str | None) -> Pictures:
    """Read a request's body as far as the pictures' headers.

    Raises RequestError: 415 for another content type, 413 for too many pixels or pictures, 400 for anything else that
    cannot be read; the message names the picture's place.
    """
    media_type, _ = parse_media_type(content_type or "")
    if media_type in PICTURE_TYPES:
        return {"the body": opened("the body", bytes(input_data))}
    if media_type not in (JSON, JSON_LINES):
        supported = ", ".join((*PICTURE_TYPES, JSON))
        raise RequestError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Type {shortened(content_type)} is not supported: send {supported} or {JSON_LINES}",
        )
    pictures = {}
    for place, instance in (instances if media_type == JSON else lines)(input_data):
        if len(pictures) == MAX_PICTURES:
            raise RequestError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has more than {MAX_PICTURES} pictures: send fewer"
            )
        pictures[place] = opened(place, decoded_base64(place, instance))
    if not pictures:
        raise RequestError(HTTPStatus.BAD_REQUEST, "the body has no picture: send one at least")
    return pictures


def instances(body: bytes | bytearray | str) -> Iterator[tuple[str, object]]:
    """The elements of {"instances": [...]}, each with its place; RequestError 400 where there is no such list."""
    document = parsed_json("the body", body)
    listed = document.get("instances") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise RequestError(HTTPStatus.BAD_REQUEST, 'the body is not {"instances": [{"b64": "..."}, ...]}: send that')
    return ((f"instances[{index}]", instance) for index, instance in enumerate(listed))


def lines(body: bytes | bytearray | str) -> Iterator[tuple[str, object]]:
    """The JSON values of a body's lines but for the empty ones, each with its place; RequestError 400 for others."""
    for number, line in enumerate(BytesIO(body.encode() if isinstance(body, str) else body), start=1):
        if line.strip():
            yield f"line {number}", parsed_json(f"line {number}", line)


def parsed_json(place: str, text: bytes | bytearray | str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(HTTPStatus.BAD_REQUEST, f"{place} is not JSON: {error}") from error


def decoded_base64(place: str, instance: object) -> bytes:
    """The bytes of {"b64": "..."}; RequestError 400 where it is something else."""
    text = instance.get("b64") if isinstance(instance, dict) else None
    if not isinstance(text, str):
        raise RequestError(HTTPStatus.BAD_REQUEST, f'{place} is not {{"b64": "..."}}: send that')
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise RequestError(HTTPStatus.BAD_REQUEST, f"b64 of {place} is not base64: {error}") from error


def opened(place: str, data: bytes) -> EncodedPicture:
    """The picture, its header read; raises RequestError."""
    try:
        return EncodedPicture.open(data)
    except PictureTooLargeError as error:
        raise RequestError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the picture in {place} is too large: {error}: send a smaller one"
        ) from error
    except PictureError as error:
        raise unreadable(place, data, error) from error


def predict_fn(pictures: Pictures, model: Model) -> Prediction:
    """Decode pictures, each as large as the model needs it, and classify them.

    Raises RequestError 400 where the pixels are damaged.
    """
    entries, logits = list(pictures.items()), []
    for start in range(0, len(entries), model.batch_size):
        batch = entries[start : start + model.batch_size]
        pixels = np.stack([decoded(place, picture, model.preprocessing) for place, picture in batch])
        logits.append(model.forward(pixels))
    return Prediction(np.concatenate(logits), model.labels)


def decoded(place: str, picture: EncodedPicture, preprocessing: Preprocessing) -> np.ndarray:
    """The network's input, float32 [3, image_size, image_size]; raises RequestError."""
    try:
        return preprocessing.served(picture)
    except PictureError as error:
        raise unreadable(place, picture.data, error) from error


def unreadable(place: str, data: bytes, error: PictureError) -> RequestError:
    return RequestError(
        HTTPStatus.BAD_REQUEST, f"{place} of {len(data)} bytes cannot be read: {error}: send a whole picture"
    )


def output_fn(prediction: Prediction, accept: str) -> tuple[str, str]:
    """The answer's body and content type.

    Raises RequestError: 406 for an Accept without JSON, 400 for a bad top_k. Raises ValueError for logits that are
    no finite numbers, which JSON cannot hold.
    """
    media_type, parameters = accepted(accept)
    if not np.isfinite(prediction.logits).all():
        raise ValueError("the model's logits are not all finite numbers: its weights are broken, train it again")
    if "top_k" in parameters:
        rows = most_likely(prediction, parse_top_k(parameters["top_k"]))
    else:
        rows = prediction.logits.tolist()
    if media_type == JSON_LINES:
        return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows), JSON_LINES
    return json.dumps(rows, allow_nan=False), JSON


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


def accepted(accept: str) -> tuple[str, dict[str, str]]:
    """Of an Accept header the first media type that can be answered, with its parameters; RequestError 406 if none."""
    for media_range in accept.split(","):
        media_type, parameters = parse_media_type(media_range)
        if media_type in ACCEPTED:
            return ACCEPTED[media_type], parameters
    raise RequestError(
        HTTPStatus.NOT_ACCEPTABLE,
        f"Accept {shortened(accept)} is not supported: ask for {JSON}, {JSON};top_k=3 or {JSON_LINES}",
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
