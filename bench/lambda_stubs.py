"""What the function talks to, on loopback: a host of one picture, and an endpoint that takes any picture.

    python -m bench.lambda_stubs STATE_DIR

Prints one line of JSON, {"endpoint", "picture", "port", "ca_file"}, and serves until its standard input ends. Both do
as little as they can, since they share the processors with what is measured; the TLS handshakes are whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import socket
import ssl
import sys
import threading
from pathlib import Path

from local.pictures import make_certificates

CLASSES = 120
PICTURE_BYTES = 56_000  # of a JPEG of 500 x 375
LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
AT_ONCE = 16


class Endpoint(asyncio.Protocol):
    """InvokeEndpoint's answer to whatever is posted, as soon as it is all there; connections stay open."""

    logits = json.dumps([[round(random.Random(index).gauss(0, 3), 6) for index in range(CLASSES)]]).encode()
    answer = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nx-Amzn-Invoked-Production-Variant: live\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(logits), logits)
    )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.headers, self.missing = transport, b"", 0

    def data_received(self, data: bytes) -> None:
        if self.missing == 0:
            headers, end, body = (self.headers + data).partition(b"\r\n\r\n")
            if not end:
                self.headers = headers
                return
            self.headers, self.missing = b"", int(LENGTH.search(headers)[1])
            data = body
        self.missing -= len(data)
        if self.missing == 0:
            self.transport.write(self.answer)


def serve_picture(listener: socket.socket, context: ssl.SSLContext, answer: bytes) -> None:
    """One connection after another, and one request on each."""
    while True:
        raw, _ = listener.accept()
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Suppressed: a client that is stopped meanwhile.
        with contextlib.suppress(OSError), context.wrap_socket(raw, server_side=True) as connection:
            request = b""
            while not request.endswith(b"\r\n\r\n") and (chunk := connection.recv(8192)):
                request += chunk
            connection.sendall(answer)


async def serve(folder: Path) -> None:
    """Until standard input ends."""
    ca_file = folder / "ca.pem"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*make_certificates(ca_file, folder))
    picture = b"\xff\xd8\xff\xe0" + os.urandom(PICTURE_BYTES - 4)
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(picture), picture)
    listener = socket.create_server(("127.0.0.1", 0))
    for _ in range(AT_ONCE):
        threading.Thread(target=serve_picture, args=(listener, context, answer), daemon=True).start()
    loop = asyncio.get_running_loop()
    endpoint = await loop.create_server(Endpoint, "127.0.0.1", 0)
    port = listener.getsockname()[1]
    stubs = {
        "endpoint": f"http://127.0.0.1:{endpoint.sockets[0].getsockname()[1]}",
        "picture": f"https://127.0.0.1:{port}/dog.jpg",
        "port": port,
        "ca_file": str(ca_file),
    }
    print(json.dumps(stubs), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
