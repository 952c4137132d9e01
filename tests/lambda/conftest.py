"""The Lambda's surroundings on loopback: a CA, hostile TLS servers, a SageMaker Runtime, a recorder of connections."""

import contextlib
import datetime
import http.server
import io
import ipaddress
import itertools
import json
import socket
import ssl
import struct
import sys
import threading
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

sys.path.insert(0, str(Path(__file__).parents[2] / "lambda"))


def one_pixel_png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\x00\xff\x00\x00")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def certificate(folder: Path, name: str, hosts: list[str], authority=None, days: int = 1):
    """Write name.pem (key and certificate) and return (key, certificate); self-signed as a CA without an authority.

    It is valid for `days` from now, and has been for a week.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer_key, issuer = authority or (key, None)
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=7))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if issuer is None:
        uses = "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"
        usage = dict.fromkeys((*uses, "encipher_only", "decipher_only"), False)
        builder = builder.add_extension(
            x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, **usage), critical=True
        )
    if hosts:
        names = [x509.DNSName(host) for host in hosts if not host[0].isdigit()]
        names += [x509.IPAddress(ipaddress.ip_address(host)) for host in hosts if host[0].isdigit()]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    signed = builder.sign(issuer_key, hashes.SHA256())
    (folder / f"{name}.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return key, signed


@pytest.fixture(scope="session")
def certificates(tmp_path_factory) -> Path:
    """A folder with ca.pem and, for pictures.test, pictures.pem (127.0.0.1 too), expired.pem and selfsigned.pem.

    stranger.pem is for another name.
    """
    folder = tmp_path_factory.mktemp("certificates")
    authority = certificate(folder, "ca", [])
    certificate(folder, "pictures", ["pictures.test", "127.0.0.1"], authority)
    certificate(folder, "stranger", ["stranger.test"], authority)
    certificate(folder, "expired", ["pictures.test"], authority, days=-1)
    certificate(folder, "selfsigned", ["pictures.test"])
    return folder


class TLSServer:
    """A TLS server that lets `behave(connection)` do whatever a host may do with one connection."""

    def __init__(self, certificate_file: Path):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate_file)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.requests: list[bytes] = []
        self.names: list[str | None] = []
        self.context.sni_callback = lambda _socket, name, _context: self.names.append(name)
        self.behave = None
        self.before_handshake = None
        self.stopping = threading.Event()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, raw: socket.socket) -> None:
        raw.settimeout(10)
        try:
            if self.before_handshake:
                self.before_handshake(raw)
            with self.context.wrap_socket(raw, server_side=True) as connection:
                request = b""
                while not request.endswith(b"\r\n\r\n"):
                    request += connection.recv(65536) or b"\r\n\r\n"
                self.requests.append(request)
                self.behave(connection)
        except OSError:
            raw.close()  # The client went away, as it should with most of these.

    def drip(self, connection, data: bytes, pause: float = 0.02) -> None:
        """Send a byte at a time, again and again, for some seconds at most."""
        end = time.monotonic() + 5
        while time.monotonic() < end and not self.stopping.wait(pause):
            connection.sendall(data)

    def close(self) -> None:
        self.stopping.set()
        self.listener.close()


def answer(connection, body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> None:
    """Send a whole HTTP answer and close the TLS connection properly."""
    lines = [f"HTTP/1.1 {status}", *headers]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
    connection.unwrap()


@pytest.fixture
def png() -> bytes:
    return one_pixel_png()


@pytest.fixture(name="answer")
def answer_function():
    return answer


@pytest.fixture
def tls_server(certificates, monkeypatch):
    """A function that starts a TLSServer under a certificate of that name; the CA is trusted through SSL_CERT_FILE."""
    import fetch

    servers = []
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "ca.pem"))
    fetch._tls_context.cache_clear()

    def start(name: str = "pictures") -> TLSServer:
        servers.append(TLSServer(certificates / f"{name}.pem"))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
    fetch._tls_context.cache_clear()


@pytest.fixture
def connections(monkeypatch):
    """The list of (address, port) connected to; anything but loopback is refused before it leaves this machine."""
    made = []
    connect = socket.socket.connect

    def record(self, address):
        made.append(address[:2])
        if address[0] != "127.0.0.1":
            raise OSError("tests connect to loopback only")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", record)
    return made


@pytest.fixture
def names(monkeypatch):
    """A fake resolver, since tests have no DNS: a dict of name to list of answers, one list of addresses a query.

    The last answer repeats. Plain addresses resolve to themselves, unknown names do not.
    """
    table: dict[str, list[list[str]]] = {"pictures.test": [["127.0.0.1"]]}

    def getaddrinfo(host, port, *_args, **_kwargs):
        try:
            addresses = [str(ipaddress.IPv4Address(host))]
        except ValueError:
            if host not in table:
                raise socket.gaierror(socket.EAI_NONAME, "unknown name") from None
            addresses = table[host].pop(0) if len(table[host]) > 1 else table[host][0]
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return table


class Runtime(http.server.ThreadingHTTPServer):
    """SageMaker Runtime on loopback: answers InvokeEndpoint with what `script` holds, the last entry repeating."""

    daemon_threads = True

    def __init__(self):
        self.calls: list[SimpleNamespace] = []
        self.script = [lambda request: request.reply(200, b"[[0.25, -1.5]]")]
        super().__init__(("127.0.0.1", 0), RuntimeRequest)


class RuntimeRequest(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.calls.append(SimpleNamespace(path=self.path, headers=self.headers, body=body))
        script = self.server.script
        (script.pop(0) if len(script) > 1 else script[0])(self)

    def reply(self, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)
        if length is not None:
            self.close_connection = True

    def fail(self, status: int, code: str, **fields) -> None:
        self.reply(status, json.dumps({"Message": "no", **fields}).encode(), x_amzn_ErrorType=code)

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def finish(self):
        with contextlib.suppress(OSError, ValueError):  # After a reset there is nothing to flush.
            super().finish()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="session")
def runtime_server():
    server = Runtime()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def runtime(runtime_server, monkeypatch):
    """The loopback SageMaker Runtime that AWS_ENDPOINT_URL leads to; the handler's client is made by the first test."""
    import handler

    runtime_server.calls = []
    runtime_server.script = [lambda request: request.reply(200, b"[[0.25, -1.5]]")]
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{runtime_server.server_address[1]}",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing-secret",
        "ENDPOINT_NAME": "image-classifier",
    }.items():
        monkeypatch.setenv(name, value)
    handler.endpoint_client()
    return runtime_server


@pytest.fixture
def new_client(runtime):
    """A function that makes the handler's client anew, under what a test has changed."""
    import handler

    def make():
        handler.endpoint_client.cache_clear()
        handler.endpoint_client()

    yield make
    handler.endpoint_client.cache_clear()


@pytest.fixture
def fuzzed(request):
    """A function to call with each fuzzed input, for `python -m security` to count in the tests' report."""
    count = itertools.count()
    yield lambda: next(count)
    request.node.user_properties.append(("fuzzed_inputs", next(count)))


@pytest.fixture
def log_lines():
    """A function that returns the handler's log lines so far, parsed."""
    import handler

    stream = io.StringIO()
    previous = handler.logger.logger_handler.setStream(stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    handler.logger.logger_handler.setStream(previous)


class Context:
    """What the runtime hands a function, with `milliseconds` left."""

    function_name = "image-classifier"
    function_version = "1"
    memory_limit_in_mb = 512
    invoked_function_arn = "arn:aws:lambda:us-east-1:123456789012:function:image-classifier:live"
    aws_request_id = "0f0f0f0f-request"

    def __init__(self, milliseconds: int = 10_000):
        self.milliseconds = milliseconds

    def get_remaining_time_in_millis(self) -> int:
        return self.milliseconds


@pytest.fixture(scope="session")
def lambda_context():
    return Context
