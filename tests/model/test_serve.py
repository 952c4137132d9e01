"""The hosting image's server with a model that does what it is told: queue, worker processes, HTTP, stop.

Orders are the body of a request: `wait FILE` is in work once FILE.begun is there, and answered once FILE is.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

CONTAINER = Path(__file__).resolve().parents[2] / "model" / "container"
PYTHON = CONTAINER.parents[1] / ".venv-hosting" / "bin" / "python"
SECONDS = 60  # for anything to happen on a busy machine

PROGRAM = """
import os
import sys
import time
from pathlib import Path

from sagemaker_inference.errors import BaseInferenceToolkitError


def wait(path):
    Path(path + ".begun").touch()
    while not os.path.exists(path):
        time.sleep(0.005)


def model_fn(model_dir):
    if "MODEL_WAITS" in os.environ:
        wait(os.environ["MODEL_WAITS"])
    if os.path.exists(os.environ.get("MODEL_FAILS", "")):
        raise ValueError("these weights\\nare broken")
    return os.getpid()


def input_fn(data, content_type):
    return "" if data[:2] == b"\\xff\\xd8" else bytes(data).decode("latin-1")


def predict_fn(order, model):
    word, _, rest = order.partition(" ")
    if word == "" and "PICTURES_FAIL" in os.environ:
        raise BaseInferenceToolkitError(400, "no pictures please", "Bad Request")
    if word == "wait":
        wait(rest)
    if word == "touch":
        Path(rest).touch()
    if word == "exit":
        sys.exit(3)
    if word == "raise":
        raise RuntimeError(rest)
    if word == "refuse":
        raise BaseInferenceToolkitError(int(rest), "not today", "whatever")
    return {"worker": model, "bytes": float("nan") if word == "nan" else len(order)}


def output_fn(prediction, accept, context):
    context.set_response_header(0, "X-Amzn-SageMaker-Custom-Attributes", context.get_request_header(0, "x-said") or "-")
    return prediction
"""

needs_environment = pytest.mark.skipif(not PYTHON.exists(), reason="the hosting environment .venv-hosting is missing")


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Of an error, which has nothing beside a code and a short message."""
        (error,) = self.json.values()
        assert set(self.json) == {"error"} and set(error) == {"code", "message"}
        assert self.headers["content-type"] == "application/json" and "Traceback" not in error["message"]
        return error["code"]


class Server:
    """A running serve.py; its folder is the base directory, standard output and error lie beside it."""

    def __init__(self, folder: Path, **environment: object):
        code = folder / "model" / "code"
        code.mkdir(parents=True)
        (code / "inference.py").write_text(PROGRAM)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self.folder = folder
        variables = {
            "PATH": os.environ["PATH"],
            "SAGEMAKER_BASE_DIR": folder,
            "SAGEMAKER_BIND_TO_PORT": self.port,
            "SAGEMAKER_MODEL_SERVER_WORKERS": 1,
            "BIND_ADDRESS": "127.0.0.1",
            **environment,
        }
        with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
            self.process = subprocess.Popen(
                [PYTHON, CONTAINER / "serve.py"],
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                env={name: str(value) for name, value in variables.items()},
            )

    def request(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            return ask(connection, method, path, body, **headers)
        finally:
            connection.close()

    def invoke(self, order: object = b"", **headers: str) -> Answer:
        return self.request("POST", "/invocations", order, **headers)

    def ping(self) -> int | None:
        """The status, None where nobody listens."""
        try:
            return self.request("GET", "/ping").status
        except OSError:
            return None

    def send(self, data: bytes) -> socket.socket:
        """A connection on which this was sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS)
        connection.sendall(data)
        return connection

    @property
    def workers(self) -> list[int]:
        front = self.process.pid
        return [int(pid) for pid in Path(f"/proc/{front}/task/{front}/children").read_text().split()]

    def log(self, request_id: str) -> list[dict]:
        """The log's lines with this id."""
        lines = (self.folder / "stdout").read_text().splitlines()[1:]
        return [line for line in map(json.loads, lines) if line.get("request_id") == request_id]

    def told(self) -> str:
        return (self.folder / "stdout").read_text() + (self.folder / "stderr").read_text()


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: object = None, **headers: str) -> Answer:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, names)
    response = connection.getresponse()
    return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


def until(condition: Callable[[], object], server: Server) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, server.told()
        time.sleep(0.01)


@contextmanager
def started(folder: Path, **environment: object) -> Iterator[Server]:
    """A server that may not be ready; whatever is left of its group in the end is killed."""
    server = Server(folder, **environment)
    try:
        yield server
    finally:
        if group(server.process.pid):
            os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait()


@contextmanager
def running(folder: Path, **environment: object) -> Iterator[Server]:
    with started(folder, **environment) as server:
        until(lambda: server.ping() == 200, server)
        yield server


def group(leader: int) -> list[int]:
    """The live processes of a group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, number = stat.read_text().rpartition(") ")[2].split()[:3]
        except OSError:
            continue
        if int(number) == leader and state not in "ZX":
            found.append(int(stat.parent.name))
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("server"), SAGEMAKER_MAX_PAYLOAD_IN_MB=1) as server:
        yield server


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as threads:
        yield threads


@pytest.fixture
def held(server, threads, tmp_path) -> Iterator[Path]:
    """A file that the server's one worker waits for."""
    path = tmp_path / "held"
    answer = threads.submit(server.invoke, f"wait {path}")
    until(path.with_name("held.begun").exists, server)
    yield path
    path.touch()
    assert answer.result().status == 200


# HTTP ---------------------------------------------------------------------------------------------------------------


@needs_environment
def test_an_answer_has_the_models_headers_and_the_clients_id(server):
    answer = server.invoke(b"echo", X_Amzn_SageMaker_Inference_Id="one-1", X_Request_Id="another", X_Said="7")
    assert (answer.status, answer.headers["content-type"], answer.json["bytes"]) == (200, "application/json", 4)
    assert answer.headers["x-request-id"] == "one-1" and answer.headers["x-amzn-sagemaker-custom-attributes"] == "7"
    assert server.invoke(b"echo", X_Request_Id="two 2\xe9").headers["x-request-id"] == "two_2_"
    made = {server.invoke(b"echo").headers["x-request-id"] for _ in range(2)}
    assert len(made) == 2


@needs_environment
def test_each_request_is_one_line_in_the_log(server):
    server.invoke(b"four", X_Request_Id="logged")
    server.invoke(b"refuse 422", X_Request_Id="refused")
    (line,) = server.log("logged")
    assert set(line) == {"request_id", "status", "bytes", "queue_milliseconds", "work_milliseconds"}
    assert (line["status"], line["bytes"]) == (200, 4)
    assert line["queue_milliseconds"] >= 0 and line["work_milliseconds"] > 0
    assert [line["status"] for line in server.log("refused")] == [422]


@needs_environment
def test_errors_are_short_and_the_reason_is_in_the_log_alone(server):
    answer = server.invoke(b"raise a secret", X_Request_Id="failed")
    assert (answer.status, answer.code) == (500, "model_error") and b"secret" not in answer.body
    trace, line = server.log("failed")
    assert "a secret" in trace["error"] and "in predict_fn" in trace["traceback"] and line["status"] == 500
    assert (server.invoke(b"nan").status, server.invoke(b"nan").code) == (500, "model_error")
    answer = server.invoke(b"refuse 422")
    assert (answer.status, answer.json["error"]["message"]) == (422, "not today")
    answer = server.invoke(b"\xff", Content_Type="application/json")
    assert (answer.status, answer.code) == (400, "bad_request")
    assert server.invoke().status == 200


@needs_environment
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/models", 404),
        ("POST", "/models?url=http://127.0.0.1:9/x.mar", 404),
        ("GET", "/invocations", 405),
        ("POST", "/ping", 405),
    ],
)
def test_there_is_nothing_but_ping_and_invocations(server, method, path, status):
    answer = server.request(method, path)
    assert answer.status == status and answer.code


@needs_environment
def test_keep_alive_and_chunked_bodies(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=SECONDS)
    assert ask(connection, "POST", "/invocations", b"abc").json["bytes"] == 3
    used = connection.sock
    assert ask(connection, "POST", "/invocations", iter([b"ab", b"cde"])).json["bytes"] == 5
    assert ask(connection, "POST", "/invocations", iter([b"x" * 700_000] * 2)).status == 413
    assert ask(connection, "GET", "/ping").status == 200
    assert connection.sock is used
    connection.close()


@needs_environment
def test_a_body_beyond_the_limit_is_refused_unread(server):
    assert server.invoke(b"x" * 1024 * 1024).status == 200
    answer = server.invoke(b"x" * (1024 * 1024 + 1))
    assert (answer.status, answer.code) == (413, "request_entity_too_large")
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n"
    with server.send(head) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


@needs_environment
@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03",
        b"POST /invocations HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /ping HTTP/1.1\r\nno colon\r\n\r\n",
    ],
)
def test_malformed_requests_are_refused_and_harm_nobody(server, data):
    with server.send(data) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
    assert server.invoke().status == 200


@needs_environment
def test_a_slow_client_holds_no_worker(server):
    with server.send(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab") as slow:
        assert server.invoke(b"fast").status == 200
        slow.sendall(b"cd")
        assert slow.recv(100).startswith(b"HTTP/1.1 200 ")


@needs_environment
def test_who_does_not_wait_is_not_worked_for(server, threads, held, tmp_path):
    order = f"touch {tmp_path / 'worked'}".encode()
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nX-Request-Id: gone\r\nContent-Length: %d\r\n\r\n" % len(order)
    server.send(head + order).close()
    until(lambda: server.log("gone"), server)
    held.touch()
    assert server.invoke().status == 200
    assert server.log("gone")[0]["status"] == 499 and not (tmp_path / "worked").exists()


# Queue, workers -----------------------------------------------------------------------------------------------------


def crowd(server: Server, threads: ThreadPoolExecutor, count: int, refused: int) -> list[Future]:
    """Send `count` requests at once and see `refused` of them refused; the others, which wait."""
    waiting, answers = {threads.submit(server.invoke) for _ in range(count)}, []
    while len(answers) < refused:
        done, waiting = wait(waiting, SECONDS, FIRST_COMPLETED)
        answers += [future.result() for future in done]
    assert {(answer.status, answer.code, answer.headers["retry-after"]) for answer in answers} == {
        (503, "queue_full", "1")
    }
    assert len(answers) == refused
    return list(waiting)


@pytest.mark.fault
@needs_environment
def test_a_full_queue_refuses_at_once_and_loses_nothing(tmp_path, threads):
    with running(tmp_path, SERVING_QUEUE_LENGTH=3) as server:
        held = tmp_path / "held"
        first = threads.submit(server.invoke, f"wait {held}")
        until((tmp_path / "held.begun").exists, server)
        waiting = crowd(server, threads, 10, refused=7)
        assert server.ping() == 200
        held.touch()
        assert [future.result().status for future in (first, *waiting)] == [200] * 4


@needs_environment
def test_ping_is_503_until_a_picture_has_been_answered(tmp_path):
    go = tmp_path / "go"
    with started(tmp_path / "base", MODEL_WAITS=go) as server:
        until(go.with_name("go.begun").exists, server)
        until(lambda: server.ping() is not None, server)
        answer = server.request("GET", "/ping")
        assert (answer.status, answer.code) == (503, "not_ready")
        answer = server.invoke()
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "not_ready", "1")
        go.touch()
        until(lambda: server.ping() == 200, server)
        assert server.invoke().status == 200


@pytest.mark.fault
@needs_environment
def test_a_killed_worker_costs_its_request_and_is_replaced(tmp_path, threads):
    go, held = tmp_path / "go", tmp_path / "held"
    go.touch()
    with running(tmp_path / "base", MODEL_WAITS=go) as server:
        worker = server.invoke().json["worker"]
        answer = threads.submit(server.invoke, f"wait {held}")
        until((tmp_path / "held.begun").exists, server)
        go.unlink()  # so that the next one is not ready yet
        os.kill(worker, signal.SIGKILL)
        assert (answer.result().status, answer.result().code) == (500, "worker_lost")
        assert server.ping() == 503 and server.invoke().status == 503
        go.touch()
        until(lambda: server.ping() == 200, server)
        replacement = server.invoke().json["worker"]
        assert replacement != worker and server.workers == [replacement]
        # An idle one is missed as well.
        os.kill(replacement, signal.SIGKILL)
        until(lambda: server.workers not in ([], [replacement]) and server.ping() == 200, server)
        assert server.invoke().status == 200


@pytest.mark.fault
@needs_environment
def test_a_worker_that_takes_too_long_or_leaves_is_replaced(tmp_path):
    with running(tmp_path, SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS=1) as server:
        worker = server.invoke().json["worker"]
        answer = server.invoke(f"wait {tmp_path / 'never'}")
        assert (answer.status, answer.code) == (504, "timed_out")
        until(lambda: server.ping() == 200 and server.workers != [worker], server)
        answer = server.invoke(b"exit")
        assert (answer.status, answer.code) == (500, "worker_lost")
        until(lambda: server.ping() == 200, server)
        assert server.invoke().status == 200


@pytest.mark.fault
@needs_environment
def test_while_no_worker_can_be_had_nobody_waits_in_vain(tmp_path, threads):
    held, broken = tmp_path / "held", tmp_path / "broken"
    with running(tmp_path / "base", MODEL_FAILS=broken, SERVING_QUEUE_LENGTH=1) as server:
        first = threads.submit(server.invoke, f"wait {held}")
        until((tmp_path / "held.begun").exists, server)
        (second,) = crowd(server, threads, 2, refused=1)
        broken.touch()
        os.kill(server.workers[0], signal.SIGKILL)
        assert first.result().status == 500
        assert (second.result().status, second.result().code) == (503, "not_ready")
        broken.unlink()
        until(lambda: server.ping() == 200, server)
        assert server.invoke().status == 200


@pytest.mark.fault
@needs_environment
def test_a_body_that_does_not_come_is_not_waited_for(tmp_path):
    with running(tmp_path, SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS=1) as server:
        with server.send(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab") as never:
            assert never.recv(100).startswith(b"HTTP/1.1 408 ")
        assert server.invoke().status == 200


@pytest.mark.fault
@needs_environment
@pytest.mark.slow
def test_under_load_and_kills_every_request_is_answered_once(tmp_path, threads):
    """A worker dies every quarter of a second; memory and descriptors of the front stay where they were."""
    with running(tmp_path, SAGEMAKER_MODEL_SERVER_WORKERS=2, SERVING_QUEUE_LENGTH=4) as server:
        resources = Path(f"/proc/{server.process.pid}/fd"), Path(f"/proc/{server.process.pid}/status")
        figures = []
        for _ in range(3):
            deadline = time.monotonic() + 4
            answers = []
            while time.monotonic() < deadline:
                asked = [threads.submit(server.invoke, b"x" * 100_000) for _ in range(40)]
                time.sleep(0.25)
                for worker in server.workers[:1]:
                    os.kill(worker, signal.SIGKILL)
                answers += [future.result() for future in asked]
            statuses = {answer.status for answer in answers}
            assert statuses <= {200, 500, 503} and 200 in statuses
            until(lambda: server.ping() == 200 and len(server.workers) == 2, server)
            resident = next(line for line in resources[1].read_text().splitlines() if line.startswith("VmRSS"))
            figures.append((len(list(resources[0].iterdir())), int(resident.split()[1])))
        (_, _), (descriptors, memory), (later_descriptors, later_memory) = figures
        assert later_descriptors <= descriptors + 2 and later_memory <= 1.1 * memory
        os.kill(server.process.pid, signal.SIGTERM)
        assert server.process.wait(SECONDS) == 0 and group(server.process.pid) == []


@needs_environment
def test_two_workers_work_at_once(tmp_path, threads):
    with running(tmp_path, SAGEMAKER_MODEL_SERVER_WORKERS=2) as server:
        until(lambda: (tmp_path / "stdout").read_text() and len(server.workers) == 2, server)
        orders = [(tmp_path / name) for name in "ab"]
        answers = [threads.submit(server.invoke, f"wait {path}") for path in orders]
        until(lambda: all(path.with_name(f"{path.name}.begun").exists() for path in orders), server)
        for path in orders:
            path.touch()
        assert len({answer.result().json["worker"] for answer in answers}) == 2


@needs_environment
def test_the_toolkits_decoders_are_there_but_loaded_only_for_those_who_need_them():
    script = """
import sys, worker
worker.transformer()
from sagemaker_inference.default_inference_handler import DefaultInferenceHandler
assert "scipy" not in sys.modules
print(DefaultInferenceHandler().default_input_fn("[1, 2]", "application/json").tolist(), "scipy" in sys.modules)
"""
    done = subprocess.run([PYTHON, "-c", script], cwd=CONTAINER, capture_output=True, text=True, check=False)
    assert done.stdout == "[1, 2] True\n", done.stderr


# Start and stop -----------------------------------------------------------------------------------------------------


@needs_environment
def test_stopping_finishes_what_is_begun_and_what_waits(tmp_path, threads):
    with running(tmp_path, SERVING_QUEUE_LENGTH=1) as server:
        held = tmp_path / "held"
        first = threads.submit(server.invoke, f"wait {held}")
        until((tmp_path / "held.begun").exists, server)
        (second,) = crowd(server, threads, 2, refused=1)
        # To the group, as a terminal's Ctrl-C comes.
        os.killpg(server.process.pid, signal.SIGTERM)
        until(lambda: server.ping() is None, server)
        held.touch()
        assert [first.result().status, second.result().status] == [200, 200]
        assert server.process.wait(SECONDS) == 0
        assert group(server.process.pid) == [] and (tmp_path / "stderr").read_text() == ""


@pytest.mark.fault
@needs_environment
def test_a_worker_that_hangs_does_not_outlive_its_front(tmp_path, threads):
    with running(tmp_path, SAGEMAKER_MODEL_SERVER_WORKERS=2) as server:
        answer = threads.submit(server.invoke, f"wait {tmp_path / 'never'}")
        until((tmp_path / "never.begun").exists, server)
        server.process.kill()
        assert isinstance(answer.exception(), http.client.HTTPException | OSError)
        until(lambda: group(server.process.pid) == [], server)


@needs_environment
@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("MODEL_FAILS", "ValueError: these weights are broken"),
        ("PICTURES_FAIL", "no pictures please"),
    ],
)
def test_a_model_that_cannot_serve_ends_the_server_with_one_line(tmp_path, variable, said):
    with started(tmp_path, **{variable: tmp_path}) as server:
        assert server.process.wait(SECONDS) == 1
        error = (tmp_path / "stderr").read_text()
        assert error.startswith("error: ") and said in error and error.count("\n") == 1
        assert group(server.process.pid) == []


@needs_environment
@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"SAGEMAKER_PROGRAM": "other.py"}, "other.py"),
        ({"SAGEMAKER_BIND_TO_PORT": "70000"}, "SAGEMAKER_BIND_TO_PORT=70000"),
        ({"SAGEMAKER_BIND_TO_PORT": "80x"}, "SAGEMAKER_BIND_TO_PORT=80x"),
        ({"BIND_ADDRESS": "192.0.2.1"}, "BIND_ADDRESS=192.0.2.1"),
        ({"SERVING_MODE": "fast"}, "SERVING_MODE=fast"),
        ({"OMP_NUM_THREADS": "0"}, "OMP_NUM_THREADS=0"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(tmp_path, environment, said):
    with started(tmp_path, **environment) as server:
        assert server.process.wait(SECONDS) == 2
        error = (tmp_path / "stderr").read_text()
        assert error.startswith("error: ") and said in error and error.count("\n") == 1


@needs_environment
def test_a_port_in_use_is_refused(server, tmp_path):
    with started(tmp_path, SAGEMAKER_BIND_TO_PORT=server.port) as second:
        assert second.process.wait(SECONDS) == 2
        assert str(server.port) in (tmp_path / "stderr").read_text()
    assert server.invoke().status == 200
