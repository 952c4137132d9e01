"""The Runtime API of one execution environment: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html.

Spoken on plain sockets in the invoking thread: the standard library's HTTP server, with a thread to hand each event to
and its parser of headers, costs more than the invocation of a small function.
"""

from __future__ import annotations

import re
import selectors
import socket
import time
from collections.abc import Mapping
from typing import NamedTuple

API = "/2018-06-01/runtime"
RESPONSE_LIMIT_BYTES = 6_291_556  # the figure in Lambda's own error
READ_BYTES = 256 * 1024
LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
REASONS = {200: "OK", 202: "Accepted", 400: "Bad Request", 404: "Not Found", 413: "Content Too Large"}


class Event(NamedTuple):
    """One invocation as the runtime is told of it."""

    request_id: str
    payload: bytes
    headers: Mapping[str, str]


class Outcome(NamedTuple):
    """What became of an exchange; `kind` is "ready" (initialised), "response", "error", "init_error", "exit" or
    "timeout", `body` what the runtime posted."""

    kind: str
    body: bytes = b""


class RuntimeAPI:
    """Serves one runtime, which asks for one event after another. `address` is AWS_LAMBDA_RUNTIME_API."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ended, self._end = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        for each in (self._listener, self._ended):
            self._selector.register(each, selectors.EVENT_READ)
        self._idle: socket.socket | None = None  # where the runtime waits for its next event
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def end(self) -> None:
        """Let a present or later exchange return "exit": the process has ended. From any thread, and again."""
        self._end.close()

    def close(self) -> None:
        """Once no exchange is under way."""
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()
        self._selector.close()

    def exchange(self, event: Event | None, until: float) -> Outcome:
        """Hand the runtime an event and wait for what becomes of it; without one, until it has initialised.

        until: time.monotonic() seconds.
        """
        running = None
        while True:
            if self._idle and running is None:
                if event is None:
                    return Outcome("ready")
                connection, self._idle, running = self._idle, None, event.request_id
                _send(connection, 200, event.payload, event.headers)
            try:
                request = self._next_request(until)
            except TimeoutError:
                return Outcome("timeout")
            if request is None:
                return Outcome("exit")
            connection, line, body = request
            if line == f"GET {API}/invocation/next":
                self._idle = connection
            elif line == f"POST {API}/init/error":
                _send(connection, 202)
                return Outcome("init_error", body)
            elif running and line == f"POST {API}/invocation/{running}/error":
                _send(connection, 202)
                return Outcome("error", body)
            elif running and line == f"POST {API}/invocation/{running}/response":
                _send(connection, 413 if len(body) > RESPONSE_LIMIT_BYTES else 202)
                return Outcome("response", body)
            elif line.startswith(f"POST {API}/invocation/"):
                _send(connection, 400, b'{"errorMessage":"Invalid request ID","errorType":"InvalidRequestID"}')
            else:
                _send(connection, 404)

    def _next_request(self, until: float) -> tuple[socket.socket, str, bytes] | None:
        """The connection, "METHOD path" and body; None once the process has ended. Raises TimeoutError."""
        while True:
            ready = {key.fileobj for key, _ in self._selector.select(max(0.0, until - time.monotonic()))}
            if not ready:
                raise TimeoutError
            # What the process has sent comes before its end.
            for connection in ready - {self._listener, self._ended}:
                connection.settimeout(max(0.001, until - time.monotonic()))
                if request := _receive(connection):
                    return connection, *request
                self._selector.unregister(connection)
                connection.close()
            if self._listener in ready:
                connection, _ = self._listener.accept()
                # Else an answer may wait 40 ms for the client's delayed acknowledgement.
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._selector.register(connection, selectors.EVENT_READ)
            elif ready == {self._ended}:
                return None


def _receive(connection: socket.socket) -> tuple[str, bytes] | None:
    """The request that begins on a connection, "METHOD path" and body; None where it is closed instead."""
    data = bytearray()
    try:
        while (end := data.find(b"\r\n\r\n")) < 0:
            if not (chunk := connection.recv(READ_BYTES)):
                return None
            data += chunk
        length = LENGTH.search(data, 0, end)
        whole = end + 4 + (int(length[1]) if length else 0)
        while len(data) < whole:
            if not (chunk := connection.recv(READ_BYTES)):
                return None
            data += chunk
    except ConnectionError:
        return None
    return data[: data.find(b"\r\n")].decode("latin-1").rpartition(" ")[0], bytes(data[end + 4 :])


def _send(connection: socket.socket, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
    lines = [
        f"HTTP/1.1 {status} {REASONS[status]}",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n",
    ]
    try:
        connection.sendall("\r\n".join(lines).encode() + body)
    except ConnectionError:
        return  # The process has ended, which is the next thing to be told.
