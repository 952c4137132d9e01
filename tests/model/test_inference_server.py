"""The real toolkit and model server, started as the hosting image starts them, on a real archive."""

from __future__ import annotations

import http.client
import io
import json
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import inference
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
SERVE = ROOT / "model" / "container" / "serve.py"
PYTHON = ROOT / ".venv-hosting" / "bin" / "python"
START_SECONDS, STOP_SECONDS = 60, 20

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="the hosting environment .venv-hosting is not set up")


class Answer(NamedTuple):
    status: int
    content_type: str
    body: bytes


def free_ports(count: int) -> list[int]:
    """Free ports the model server can use: it refuses those above 32767, which the system would choose."""
    free = []
    while len(free) < count:
        port = random.randrange(10_000, 32_768)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            free.append(port)
    assert len(set(free)) == count
    return free


class Server:
    """A running serve.py."""

    def __init__(self, base: Path, temporary: Path):
        self.port, self.management_port = free_ports(2)
        self.temporary = temporary
        self.log = temporary.with_suffix(".log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [PYTHON, SERVE],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ
                | {
                    "SAGEMAKER_BASE_DIR": str(base),
                    "SAGEMAKER_BIND_TO_PORT": str(self.port),
                    "BIND_ADDRESS": "127.0.0.1",
                    "MANAGEMENT_PORT": str(self.management_port),
                    "SAGEMAKER_MODEL_SERVER_WORKERS": "1",
                    "TMPDIR": str(temporary),
                },
            )

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=START_SECONDS)
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, names)
            response = connection.getresponse()
            return Answer(response.status, response.headers.get("Content-Type", ""), response.read())
        finally:
            connection.close()

    def invoke(self, body: bytes, content_type: str = "image/png", accept: str = "application/json") -> Answer:
        return self.request("POST", "/invocations", body, Content_Type=content_type, Accept=accept)

    def wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                if self.request("GET", "/ping").status == 200:
                    return
            except OSError:
                pass
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def members(self) -> list[int]:
        """The live processes of the server's group."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                _, _, fields = stat.read_text().rpartition(") ")
            except OSError:
                continue
            state, _, group = fields.split()[:3]
            if int(group) == self.process.pid and state != "Z":
                found.append(int(stat.parent.name))
        return found

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)


@contextmanager
def running(base: Path, temporary: Path) -> Iterator[Server]:
    server = Server(base, temporary)
    try:
        server.wait()
        yield server
    finally:
        if server.members():
            os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait()


@pytest.fixture(scope="module")
def base(model_folder, tmp_path_factory) -> Path:
    base = tmp_path_factory.mktemp("base")
    (base / "model").symlink_to(model_folder)
    return base


@pytest.fixture(scope="module")
def server(base, tmp_path_factory) -> Iterator[Server]:
    with running(base, tmp_path_factory.mktemp("t")) as server:
        yield server


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
    answer = server.invoke(body, content_type)
    assert (answer.status, answer.content_type) == (200, "application/json"), answer.body
    expected = inference.predict_fn(inference.input_fn(body, content_type), torch_model).logits
    np.testing.assert_allclose(json.loads(answer.body), expected, atol=1e-3)


def test_top_k_comes_with_labels(server, torch_model):
    answer = server.invoke(picture(), accept="application/json;top_k=2")
    assert (answer.status, answer.content_type) == (200, "application/json")
    prediction = inference.predict_fn(inference.input_fn(picture(), "image/png"), torch_model)
    (expected,) = inference.most_likely(prediction, 2)
    (actual,) = json.loads(answer.body)
    assert [item["label"] for item in actual] == [item["label"] for item in expected]
    np.testing.assert_allclose(
        [item["probability"] for item in actual], [item["probability"] for item in expected], atol=1e-3
    )


def test_without_an_accept_header_the_answer_is_json(server):
    answer = server.request("POST", "/invocations", picture(), Content_Type="image/png")
    assert (answer.status, answer.content_type) == (200, "application/json")


@pytest.mark.parametrize(
    ("status", "arguments"),
    [
        pytest.param(400, (b"no picture",), id="no picture"),
        pytest.param(400, (picture()[:-100],), id="cut short"),
        pytest.param(400, (picture(), "image/png", "application/json;top_k=0"), id="bad top_k"),
        pytest.param(406, (picture(), "image/png", "text/csv"), id="unsupported answer"),
        pytest.param(415, (b"[1, 2]", "application/json"), id="JSON body"),
        pytest.param(415, (picture(), "image/tiff"), id="unsupported picture type"),
        pytest.param(413, (b"\0" * 7_000_000,), id="payload beyond the limit"),
    ],
)
def test_the_clients_mistakes_are_4xx_and_the_server_goes_on(server, status, arguments):
    assert server.invoke(*arguments).status == status
    assert server.invoke(picture()).status == 200


def test_management_is_not_on_the_public_port(server):
    assert server.request("GET", "/models").status != 200
    assert server.request("POST", "/models?url=http://127.0.0.1:9/x.mar").status != 200


def test_stopping_one_server_leaves_no_process_and_harms_no_other(server, base, tmp_path):
    temporary = tmp_path / "t"
    temporary.mkdir()
    with running(base, temporary) as second:
        assert second.invoke(picture()).status == 200
        assert len(second.members()) >= 3  # serve.py, the JVM, a worker
        assert second.stop() == 0
        assert second.members() == []
        assert list(temporary.iterdir()) == []
    assert server.invoke(picture()).status == 200


def refused(**environment: str) -> str:
    """What serve.py writes when it refuses its settings, which must be one line and status 2."""
    command = [PYTHON, SERVE]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_wrong_settings_are_refused(base, tmp_path):
    assert "inference.py" in refused(SAGEMAKER_BASE_DIR=str(tmp_path))
    assert "40000" in refused(SAGEMAKER_BASE_DIR=str(base), SAGEMAKER_BIND_TO_PORT="40000")
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    assert "TMPDIR" in refused(SAGEMAKER_BASE_DIR=str(base), TMPDIR=str(deep))
    assert list(deep.iterdir()) == []
