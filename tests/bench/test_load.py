"""The load client against servers that answer, refuse, hang up and stay silent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bench.serving import load
from bench.serving.load import percentile
from bench.serving.servers import free_ports


@contextmanager
def server(answer: Callable[[BaseHTTPRequestHandler, int], None]) -> Iterator[ThreadingHTTPServer]:
    """A server that calls answer(handler, number of the request); its `bodies` are what came."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.server.types.add(self.headers["Content-Type"])
            answer(self, len(self.server.bodies))

        def setup(self):
            self.server.connections += 1
            super().setup()

        def log_message(self, *arguments: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.bodies, running.types, running.connections = [], set(), 0
    threading.Thread(target=running.serve_forever, daemon=True).start()
    try:
        yield running
    finally:
        running.shutdown()
        running.server_close()


def reply(handler: BaseHTTPRequestHandler, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": "2", **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(b"[]")


@pytest.fixture
def pictures(tmp_path) -> list[Path]:
    paths = [tmp_path / "a.jpg", tmp_path / "b.png"]
    for path in paths:
        path.write_bytes(path.name.encode() * 1000)
    return paths


def loaded(running: ThreadingHTTPServer, pictures: list[Path], clients: int) -> load.Load:
    return load.run(running.server_address[1], pictures, clients, seconds=0.4, warm_up=0.1)


def test_every_answer_is_counted_and_connections_are_kept(pictures):
    def slowly(handler: BaseHTTPRequestHandler, number: int) -> None:
        time.sleep(0.02)
        reply(handler)

    with server(slowly) as running:
        found = loaded(running, pictures, 3)
        assert found.statuses == {"200": len(running.bodies)}
        assert running.connections == 3
        assert set(running.bodies) == {path.read_bytes() for path in pictures}
        assert running.types == {"image/jpeg", "image/png"}
    assert found.lost == 0
    assert 20 <= found.p50 <= found.p99
    assert 0 < found.per_second <= 3 / 0.02


def test_refusals_are_answers_and_their_wait_is_obeyed(pictures):
    def refuse(handler: BaseHTTPRequestHandler, number: int) -> None:
        reply(handler, 503, Retry_After="1")

    with server(refuse) as running:
        found = loaded(running, pictures, 2)
    assert found.statuses == {"503": 2}  # who did not wait would have asked hundreds of times
    assert (found.lost, found.per_second) == (0, 0)


def test_a_connection_that_ends_without_an_answer_is_a_lost_request(pictures):
    def hang_up_at_first(handler: BaseHTTPRequestHandler, number: int) -> None:
        if number == 1:
            handler.close_connection = True
        else:
            reply(handler)

    with server(hang_up_at_first) as running:
        found = loaded(running, pictures, 1)
        assert found.lost == 1
        assert found.statuses["200"] == len(running.bodies) - 1 > 0


def test_a_server_that_closes_after_each_answer_loses_nothing(pictures):
    with server(lambda handler, number: reply(handler, Connection="close")) as running:
        found = loaded(running, pictures, 2)
        assert running.connections >= len(running.bodies) == found.statuses["200"]
    assert found.lost == 0


def test_no_server_is_all_lost(pictures):
    (port,) = free_ports(1)
    found = load.run(port, pictures, 2, seconds=0.3, warm_up=0)
    assert found.statuses == {} and found.lost > 0


@pytest.mark.parametrize(
    ("count", "share", "expected"), [(1, 0.99, 1), (2, 0.5, 1), (3, 0.5, 2), (100, 0.99, 99), (101, 0.99, 100)]
)
def test_the_percentile_is_a_value_that_was_seen(count, share, expected):
    assert percentile(range(count, 0, -1), share) == expected
