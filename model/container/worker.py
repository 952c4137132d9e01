"""One worker process: a model of its own behind the inference toolkit, one request at a time.

    python worker.py FD

FD is this end of a socket pair whose other end the front holds; requests, answers and the word of being ready are
messages on it. The worker ends when the other end is closed, however that comes about.
"""

# The front imports the messages from here, so that the names of its other files stay free for the archive's modules.
# What it has no use for (the toolkit, NumPy) is imported where the worker needs it.
from __future__ import annotations

import importlib.util
import io
import json
import os
import select
import signal
import socket
import struct
import sys
import threading
import traceback
from http import HTTPStatus

# Lengths of the two parts of a message: fields (JSON) and body.
HEAD = struct.Struct("!II")
JSON = "application/json"
LONGEST_MESSAGE = 1000


def message(fields: dict, body: bytes = b"") -> bytes:
    """What to send for these."""
    encoded = json.dumps(fields).encode()
    return b"".join((HEAD.pack(len(encoded), len(body)), encoded, body))


def receive(channel: socket.socket) -> tuple[dict, bytes]:
    """Wait for the next message; EOFError where the other end is closed."""
    fields_length, body_length = HEAD.unpack(receive_bytes(channel, HEAD.size))
    fields = json.loads(receive_bytes(channel, fields_length))
    return fields, receive_bytes(channel, body_length)


def receive_bytes(channel: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = channel.recv(size - len(data), socket.MSG_WAITALL)
        if not part:
            raise EOFError
        data = data + part if data else part
    return data


def error_body(code: str, text: str) -> bytes:
    """The body of every refusal and failure."""
    return json.dumps({"error": {"code": code, "message": text[:LONGEST_MESSAGE]}}).encode()


def code_of(status: int) -> str:
    """A status's name as an error code: 413 is "request_entity_too_large"."""
    try:
        return HTTPStatus(status).phrase.lower().replace(" ", "_").replace("-", "_")
    except ValueError:
        return f"status_{status}"


def log(**fields: object) -> None:
    """One JSON line on standard output."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


class Context:
    """What the toolkit, and handler functions that ask for it, see of a request: multi-model-server's context."""

    def __init__(self, model_dir: str):
        self.system_properties = {"model_dir": model_dir}
        self.request_processor = [self]
        self.begin({"headers": {}, "request_id": ""}, b"")

    def begin(self, fields: dict, body: bytes) -> None:
        """Turn to the next request."""
        self.request_id, self.request_headers, self.body = fields["request_id"], fields["headers"], body
        self.status, self.content_type, self.response_headers = 200, JSON, {}

    def get_request_properties(self) -> dict[str, str]:
        return self.request_headers

    def get_request_id(self, idx: int = 0) -> str:
        return self.request_id

    def get_request_header(self, idx: int, key: str) -> str | None:
        return self.request_headers.get(key.lower())

    def get_all_request_header(self, idx: int) -> dict[str, str]:
        return self.request_headers

    def set_response_content_type(self, idx: int, value: str) -> None:
        self.content_type = value

    def get_response_content_type(self, idx: int) -> str:
        return self.content_type

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        self.status = code

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        self.response_headers[key.lower()] = str(value)


def transformer():
    """The toolkit's request processing, which answers errors in JSON and keeps their traceback for the log."""
    postpone_decoders()
    from sagemaker_inference.errors import BaseInferenceToolkitError
    from sagemaker_inference.transformer import Transformer

    class ShortErrors(Transformer):
        @staticmethod
        def handle_error(context: Context, inference_exception: BaseInferenceToolkitError, trace: str) -> list[bytes]:
            # The toolkit wraps what is no error of its own, but calls this where the original is still at hand.
            error, status, code = sys.exc_info()[1], 500, "model_error"
            text = "the model failed on this request; the server's log says why under its id"
            if isinstance(error, BaseInferenceToolkitError) and 400 <= error.status_code <= 599:
                status, text = error.status_code, str(error.message)
                code = code_of(status)
            elif isinstance(error, UnicodeDecodeError) and error.object == context.body:
                status, code, text = 400, code_of(400), f"the body is not UTF-8: {error.reason} at byte {error.start}"
            if status >= 500:
                log(request_id=context.request_id, error=f"{type(error).__name__}: {error}", traceback=trace)
            context.status, context.content_type, context.response_headers = status, JSON, {}
            return [error_body(code, text)]

    return ShortErrors()


def postpone_decoders() -> None:
    """Let the toolkit's default input_fn load its decoders when it is first called, if ever.

    They bring SciPy for one rare format, which doubles what a worker imports.
    """
    import sagemaker_inference

    name = f"{sagemaker_inference.__name__}.decoder"
    spec = importlib.util.find_spec(name)
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[name] = sagemaker_inference.decoder = module


def encoded(result: object) -> bytes:
    """A handler function's result as an answer's body. Raises TypeError or ValueError for what JSON cannot hold."""
    if isinstance(result, bytes | bytearray | memoryview):
        return bytes(result)
    return (result if isinstance(result, str) else json.dumps(result, allow_nan=False)).encode()


class Model:
    """The archive's model behind the toolkit."""

    def __init__(self, model_dir: str):
        self.context = Context(model_dir)
        self.transformer = transformer()
        self.transformer.validate_and_initialize(model_dir=model_dir, context=self.context)

    def answer(self, fields: dict, body: bytes) -> tuple[dict, bytes]:
        """The answer to a request of headers and request_id: status, content_type and headers; its body."""
        context = self.context
        context.begin(fields, body)
        [result] = self.transformer.transform([{"body": body}], context)
        try:
            answer = encoded(result)
        except (TypeError, ValueError) as error:
            log(request_id=context.request_id, error=f"output_fn: {error}", traceback=traceback.format_exc())
            context.status, context.content_type = 500, JSON
            answer = error_body("model_error", "the model's answer cannot be sent")
        return {
            "status": context.status,
            "content_type": context.content_type,
            "headers": context.response_headers,
        }, answer


def warm_up(model: Model) -> None:
    """Answer a picture as if it had been sent; RuntimeError where the model does not."""
    from PIL import Image

    picture = io.BytesIO()
    Image.new("RGB", (500, 375), (90, 120, 150)).save(picture, "JPEG")
    headers = {"content-type": "image/jpeg", "accept": JSON}
    answer, body = model.answer({"headers": headers, "request_id": "warm-up"}, picture.getvalue())
    if answer["status"] != 200:
        raise RuntimeError(f"a 500 x 375 JPEG is answered with {answer['status']} {body.decode(errors='replace')}")


def leave_with(channel: socket.socket) -> None:
    """End this process, whatever it does, when the other end of the channel is gone."""

    def wait() -> None:
        hung_up = select.poll()
        hung_up.register(channel, 0)
        hung_up.poll()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    # The front decides when to stop: a TERM or a Ctrl-C meant for the whole group must not cut a request short.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    leave_with(channel)
    model_dir = os.path.join(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"), "model")
    sys.path[0] = os.path.join(model_dir, "code")
    try:
        model = Model(model_dir)
        warm_up(model)
    except Exception as error:
        log(error="the model cannot be loaded", traceback=traceback.format_exc())
        reason = f"{type(error).__name__}: {error}".replace("\n", " ")
        channel.sendall(message({"failed": reason}))
        return
    channel.sendall(message({"ready": True}))
    while True:
        try:
            request = receive(channel)
        except (EOFError, ConnectionError):
            return
        channel.sendall(message(*model.answer(*request)))


if __name__ == "__main__":
    main()
