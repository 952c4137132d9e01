"""An HTTPS host for pictures on loopback, under a certificate authority of its own: what {"url": ...} points at."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import mimetypes
import socketserver
import ssl
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALIDITY = datetime.timedelta(days=7)
SOCKET_SECONDS = 30


class PictureHost:
    """Serves what `put` was given, from memory, to GET and HEAD; everything else is a 404.

    Args:
        state_dir: receives the authority's certificate and the server's certificate and key.
        port: 0 takes a free one.

    Attributes:
        ca_file: the authority's certificate (PEM); a client trusts it through SSL_CERT_FILE.
        port: the port on 127.0.0.1.
        url: "https://localhost:PORT".
    """

    def __init__(self, state_dir: Path | str, port: int = 0) -> None:
        folder = Path(state_dir).resolve() / "pictures"
        folder.mkdir(parents=True, exist_ok=True)
        self.ca_file = folder / "ca.pem"
        chain, key = make_certificates(self.ca_file, folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain, key)
        self._server = _Server(context, port)
        self.port: int = self._server.server_address[1]
        self.url = f"https://localhost:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    def put(self, name: str, body: bytes) -> str:
        """Publishes `body` under `name` (its suffix gives the content type) and returns the URL."""
        path = "/" + urllib.parse.quote(name.lstrip("/"))
        self._server.pictures[path] = (mimetypes.guess_type(name)[0] or "application/octet-stream", bytes(body))
        return self.url + path

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(socketserver.ThreadingTCPServer):  # HTTPServer would look up the machine's name, which can hang
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, context: ssl.SSLContext, port: int) -> None:
        self.pictures: dict[str, tuple[str, bytes]] = {}
        self._context = context
        super().__init__(("127.0.0.1", port), _Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        # In the connection's own thread: a client that never finishes its handshake must not hold up the others.
        request.settimeout(SOCKET_SECONDS)
        # Suppressed: a client that does not trust us or went away, whose own error says so.
        with contextlib.suppress(OSError), self._context.wrap_socket(request, server_side=True) as connection:
            super().finish_request(connection, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        found = self.server.pictures.get(urllib.parse.urlsplit(self.path).path)
        content_type, body = found or ("text/plain", b"no such picture\n")
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *args: Any) -> None:
        """Nothing: the account's log is about AWS."""


def make_certificates(ca_file: Path, folder: Path) -> tuple[Path, Path]:
    """Writes a new authority's certificate to `ca_file`; returns the server's certificate and key files.

    The authority's own key is never written: nothing more can be signed with it.
    """
    ca_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Local picture host authority")])
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    no_usage = dict.fromkeys(
        ("content_commitment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"), False
    )
    ca_usage = x509.KeyUsage(
        digital_signature=False, key_encipherment=False, key_cert_sign=True, crl_sign=True, **no_usage
    )
    ca = (
        _builder(ca_name, ca_name, ca_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(ca_usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    server = (
        _builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]), ca_name, server_key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    ca_file.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    chain, key = folder / "server.pem", folder / "server.key"
    chain.write_bytes(server.public_bytes(serialization.Encoding.PEM))
    key.touch(mode=0o600)
    key.write_bytes(
        server_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return chain, key


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))  # a guest whose clock is a little behind
        .not_valid_after(now + VALIDITY)
    )
