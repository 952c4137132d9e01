"""A fake of EC2's instance metadata service, version 2 only: a session token by PUT, then GET with it."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN_PATH = "/latest/api/token"
TOKEN_HEADER = "X-aws-ec2-metadata-token"
LIFETIME_HEADER = "X-aws-ec2-metadata-token-ttl-seconds"


@contextlib.contextmanager
def instance_metadata(values: Mapping[str, str]) -> Iterator[str]:
    """Serves `values` (path below /latest/meta-data/ -> text), as they stand at each request, on the loopback.

    Yields the base URL. A spot instance finds EC2's notice at `spot/instance-action`.

    As the real one: 400 for a token without a lifetime of 1 to 21600 seconds, 401 without a token that it gave out,
    404 for what it does not know. Tokens do not expire here.
    """
    tokens: set[str] = set()

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            lifetime = self.headers.get(LIFETIME_HEADER, "")
            if self.path != TOKEN_PATH:
                return self._answer(404)
            if not lifetime.isascii() or not lifetime.isdigit() or not 1 <= int(lifetime) <= 21600:
                return self._answer(400)
            token = secrets.token_urlsafe(32)
            tokens.add(token)
            self._answer(200, token)

        def do_GET(self) -> None:
            if self.headers.get(TOKEN_HEADER) not in tokens:
                return self._answer(401)
            value = values.get(self.path.removeprefix("/latest/meta-data/"))
            self._answer(404 if value is None else 200, value or "")

        def _answer(self, status: int, text: str = "") -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
