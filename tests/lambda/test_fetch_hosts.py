"""What the fetch guard makes of hosts that answer badly, slowly, endlessly or not at all, over real TLS on loopback."""

import gzip
import ipaddress
import socket
import ssl
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import fetch
import pytest

LOOPBACK = ipaddress.ip_network("127.0.0.1/32")
MAX_BYTES = 100_000


@pytest.fixture
def server(tls_server, names, connections):
    return tls_server()


@pytest.fixture
def get(server, connections):
    """A function that fetches from the server under a deadline of some seconds."""

    def get(host: str = "pictures.test", path: str = "/a.png?token=secret", seconds: float = 5) -> fetch.Picture:
        entry = fetch.PrivateHost(host, server.port, LOOPBACK)
        return fetch.fetch_picture(
            f"https://{host}:{server.port}{path}",
            deadline=time.monotonic() + seconds,
            max_bytes=MAX_BYTES,
            private_hosts=[entry],
        )

    yield get
    assert set(connections) <= {("127.0.0.1", server.port)}


@pytest.fixture
def hostile(request):
    """Lets `python -m security` count a test's host as one that means harm."""
    request.node.user_properties.append(("hostile_host", request.node.name))


@pytest.fixture
def refused(get, hostile):
    """A function that fetches and returns the refusal, which must not quote the query."""

    def refused(kind: type[fetch.Refusal], **arguments) -> fetch.Refusal:
        with pytest.raises(kind) as refusal:
            get(**arguments)
        assert "secret" not in str(refusal.value)
        assert refusal.value.host
        return refusal.value

    return refused


def chunked(*chunks: bytes, last: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + last


def test_a_png_comes_whole_under_the_hosts_own_name(server, get, png, answer):
    server.behave = lambda connection: answer(connection, png, "Content-Type: text/html", length=len(png))
    assert get() == fetch.Picture(png, "image/png")
    [request] = server.requests
    line, *headers = request.decode().rstrip().split("\r\n")
    assert line == "GET /a.png?token=secret HTTP/1.1"
    assert f"Host: pictures.test:{server.port}" in headers
    assert "Accept-Encoding: identity" in headers
    assert server.names == ["pictures.test"]


def test_the_default_port_is_left_out_of_the_host_header(server, png, answer, monkeypatch):
    server.behave = lambda connection: answer(connection, png, length=len(png))
    monkeypatch.setattr(fetch, "HTTPS_PORT", server.port)
    entry = fetch.PrivateHost("pictures.test", server.port, LOOPBACK)
    fetch.fetch_picture(
        "https://pictures.test/", deadline=time.monotonic() + 5, max_bytes=MAX_BYTES, private_hosts=[entry]
    )
    assert b"\r\nHost: pictures.test\r\n" in server.requests[0]


def test_a_certificate_for_the_address_serves_a_plain_address(server, get, png, answer):
    server.behave = lambda connection: answer(connection, png, length=len(png))
    assert get(host="127.0.0.1").content == png


def test_a_jpeg_is_known_by_its_first_bytes(server, get, answer):
    jpeg = b"\xff\xd8\xff\xe0" + bytes(20)
    server.behave = lambda connection: answer(connection, jpeg, "Content-Type: image/png", length=len(jpeg))
    assert get() == fetch.Picture(jpeg, "image/jpeg")


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_chunks_are_joined(server, get, png, answer, size):
    chunks = [png[start : start + size] for start in range(0, len(png), size)]
    server.behave = lambda connection: answer(connection, chunked(*chunks), "Transfer-Encoding: chunked")
    assert get().content == png


def test_a_body_without_length_ends_with_the_connection(server, get, png, answer):
    server.behave = lambda connection: answer(connection, png)
    assert get().content == png


def test_exactly_the_byte_limit_is_allowed(server, get, png, answer):
    body = png.ljust(MAX_BYTES, b"\0")
    server.behave = lambda connection: answer(connection, body, length=len(body))
    assert len(get().content) == MAX_BYTES


@pytest.mark.parametrize("framing", ["length", "chunked", "none"])
def test_one_byte_more_is_too_large(server, refused, png, answer, framing):
    body = png.ljust(MAX_BYTES + 1, b"\0")
    server.behave = {
        "length": lambda connection: answer(connection, body, length=len(body)),
        "chunked": lambda connection: answer(connection, chunked(body), "Transfer-Encoding: chunked"),
        "none": lambda connection: answer(connection, body),
    }[framing]
    assert refused(fetch.PictureTooLarge).status == 413


@pytest.fixture
def reads(monkeypatch):
    """The sizes of what the guard reads from its TLS connections; servers here read in another way."""
    sizes = []
    receive_into = ssl.SSLSocket.recv_into

    def record(self, *arguments):
        sizes.append(receive_into(self, *arguments))
        return sizes[-1]

    monkeypatch.setattr(ssl.SSLSocket, "recv_into", record)
    return sizes


LARGE_CHUNK = b"%x\r\n%s\r\n" % (50_000, bytes(50_000))


@pytest.mark.parametrize(
    ("header", "start", "piece", "most"),
    [
        pytest.param(b"X: y", b"", bytes(65536), MAX_BYTES, id="no length"),
        pytest.param(b"Content-Length: 50000", b"", bytes(65536), 50_000, id="more than its length"),
        pytest.param(b"Content-Length: 100001", b"", bytes(65536), 0, id="a length beyond the cap"),
        pytest.param(b"Content-Length: 900000000000000000", b"", bytes(65536), 0, id="a length beyond all memory"),
        pytest.param(b"Transfer-Encoding: chunked", b"9\r\n", LARGE_CHUNK, MAX_BYTES, id="chunks"),
        pytest.param(
            b"Transfer-Encoding: chunked", b"9\r\n", b"fffffffffffffff\r\n" + bytes(65536), MAX_BYTES, id="one"
        ),
        # Mostly framing, for which there is an eighth more and as much as for headers.
        pytest.param(
            b"Transfer-Encoding: chunked", b"9\r\n", b"1\r\n\0\r\n" * 9999, MAX_BYTES * 9 // 8 + 32768, id="tiny"
        ),
    ],
)
def test_of_an_endless_body_no_more_than_the_cap_and_one_read_is_taken(
    hostile, server, get, reads, png, header, start, piece, most
):
    head = b"HTTP/1.1 200 OK\r\n" + header + b"\r\n\r\n" + start
    picture = png[:9] + b"\r\n" if start else png
    sent = []

    def endless(connection):
        connection.sendall(head + picture)
        while len(sent) < 1000:
            connection.sendall(piece)
            sent.append(piece)

    server.behave = endless
    if most == 50_000:
        assert len(get().content) == most  # What comes after a picture's length is not the picture.
    else:
        with pytest.raises(fetch.PictureTooLarge):
            get()
    framing = 64  # of the few chunks that hold a picture of the largest size
    assert sum(reads) <= len(head) + most + framing + max(reads)
    assert len(sent) < 1000


def test_endless_chunk_framing_is_cut(server, refused, png):
    def endless(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(png, last=b""))
        for _ in range(10_000):
            connection.sendall(b"1;" + b"x" * 10_000 + b"\r\n\0\r\n")

    server.behave = endless
    refused(fetch.PictureTooLarge)


@pytest.mark.parametrize("line", [b"X: " + b"y" * 500 + b"\r\n", b"y" * 500], ids=["many", "one"])
def test_endless_headers_are_cut(server, refused, line):
    def endless(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        for _ in range(10_000):
            connection.sendall(line)

    server.behave = endless
    assert refused(fetch.BadHostAnswer).status == 502


def resolving(_server, monkeypatch):
    monkeypatch.setattr(fetch.socket, "getaddrinfo", lambda *_args, **_kwargs: time.sleep(4))


def connecting(server, monkeypatch):
    """A full queue of connections that nobody accepts: the next one is neither refused nor made."""
    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    waiting = [socket.socket() for _ in range(4)]
    for each in waiting:
        each.setblocking(False)
        each.connect_ex(full.getsockname())
    monkeypatch.setattr(server, "port", full.getsockname()[1])
    monkeypatch.setattr(server, "kept_open", [full, *waiting], raising=False)


def shaking_hands(server, _monkeypatch):
    server.before_handshake = lambda _raw: server.stopping.wait(5)


def shaking_hands_slowly(server, _monkeypatch):
    def drip(raw):
        raw.sendall(b"\x16\x03\x03\x40\x00")  # a record of 16 KiB, of a handshake
        server.drip(raw, b"\x02")

    server.before_handshake = drip


def sending(start: bytes, piece: bytes):
    def slow(server, _monkeypatch):
        def drip(connection):
            connection.sendall(start)
            server.drip(connection, piece)

        server.behave = drip

    return slow


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "slow",
    [
        *(resolving, connecting, shaking_hands, shaking_hands_slowly),
        pytest.param(sending(b"", b""), id="silent"),
        pytest.param(sending(b"", b"H"), id="status line"),
        pytest.param(sending(HEAD + b"X: ", b"y"), id="headers"),
        pytest.param(sending(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), id="interim answers"),
        pytest.param(sending(HEAD + b"\r\n\x89PNG\r\n\x1a\n", b"x"), id="body"),
        pytest.param(sending(HEAD + b"Content-Length: 9000\r\n\r\n\x89PNG\r\n\x1a\n", b""), id="half a body"),
        pytest.param(
            sending(HEAD + b"Transfer-Encoding: chunked\r\n\r\n8\r\n\x89PNG\r\n\x1a\n\r\n", b"1\r\nx\r\n"), id="chunks"
        ),
    ],
)
def test_the_deadline_is_kept_within_half_a_second(server, refused, slow, monkeypatch):
    """The hosts are slow for 4 s and more. How late this process itself is, on a busy machine, a mere sleep tells."""
    slow(server, monkeypatch)

    def overrun(wait: Callable[[], object]) -> float:
        started = time.monotonic()
        wait()
        return time.monotonic() - started - 0.3

    with ThreadPoolExecutor(1) as beside:
        for _ in range(3):
            late = beside.submit(overrun, lambda: time.sleep(0.3))
            assert overrun(lambda: refused(fetch.FetchTimeout, seconds=0.3)) < 0.5 + late.result()


def test_nothing_is_sent_once_the_deadline_has_passed(server, refused, connections):
    refused(fetch.FetchTimeout, seconds=-1)
    assert connections == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{png}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n45\r\n{png}\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\n{png}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{png}",
        b"HTTP/1.1 two OK\r\n\r\n{png}",
        b"{png}",
        b"SSH-2.0-OpenSSH\r\n",
    ],
)
@pytest.mark.parametrize("politely", [True, False])
def test_an_early_end_or_nonsense_is_a_broken_answer(server, refused, png, data, politely):
    def cut(connection):
        connection.sendall(data.replace(b"{png}", png))
        if politely:
            connection.unwrap()

    server.behave = cut
    assert refused(fetch.BadHostAnswer).status == 502


def test_a_body_without_length_that_is_cut_by_somebody_else_is_broken(server, refused, png):
    server.behave = lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + png)  # No TLS goodbye.
    refused(fetch.BadHostAnswer)


def test_a_reset_is_a_broken_answer(server, refused, png):
    def reset(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + png)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    server.behave = reset
    refused(fetch.BadHostAnswer)


@pytest.mark.parametrize(
    "headers",
    [
        ["Content-Encoding: gzip"],
        ["Content-Encoding: identity, gzip"],
        ["Content-Encoding: identity", "Content-Encoding: br"],
        ["Transfer-Encoding: gzip, chunked"],
        ["Transfer-Encoding: gzip"],
        ["Content-Length: 1", "Content-Length: 70"],
        ["Content-Length: -1"],
        ["Content-Length: 5, 5"],
        ["Content-Length: 0x10"],
    ],
    ids="; ".join,
)
def test_encodings_and_unclear_lengths_are_refused(server, refused, png, answer, headers):
    server.behave = lambda connection: answer(connection, gzip.compress(png * 1000), *headers)
    refused(fetch.BadHostAnswer)


@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary Redirect"])
def test_redirects_are_named_and_not_followed(server, refused, answer, status):
    server.behave = lambda connection: answer(
        connection, b"", "Location: https://169.254.169.254/latest/meta-data/", status=status, length=0
    )
    refusal = refused(fetch.BadHostAnswer)
    assert refusal.status == 502
    assert "redirect" in str(refusal)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", ["204 No Content", "206 Partial Content", "403 Forbidden", "404 No", "500 Oops"])
def test_another_status_than_200_is_named(server, refused, png, answer, status):
    server.behave = lambda connection: answer(connection, png, status=status, length=len(png))
    refusal = refused(fetch.BadHostAnswer)
    assert refusal.status == 502
    assert f"answered {status[:3]} " in str(refusal)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"GIF89a", b"\x89PNG", b"\xff\xd8", b"RIFF\0\0\0\0WEBP", b" \xff\xd8\xff"]
)
def test_what_is_neither_jpeg_nor_png_is_refused(server, refused, answer, body):
    server.behave = lambda connection: answer(connection, body, "Content-Type: image/png", length=len(body))
    assert refused(fetch.NotAPicture).status == 415


@pytest.mark.parametrize("name", ["stranger", "expired", "selfsigned"])
def test_a_wrong_certificate_is_untrusted_and_nothing_is_sent(
    name, hostile, tls_server, names, connections, png, answer
):
    host = tls_server(name)
    host.behave = lambda connection: answer(connection, png, length=len(png))
    entry = fetch.PrivateHost("pictures.test", host.port, LOOPBACK)
    with pytest.raises(fetch.BadHostAnswer, match="untrusted certificate"):
        fetch.fetch_picture(
            f"https://pictures.test:{host.port}/",
            deadline=time.monotonic() + 5,
            max_bytes=MAX_BYTES,
            private_hosts=[entry],
        )
    assert host.requests == []
    assert connections == [("127.0.0.1", host.port)]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_a_host_that_knows_only_an_old_tls_is_refused(server, refused, certificates):
    server.context.minimum_version = ssl.TLSVersion.TLSv1
    server.context.maximum_version = ssl.TLSVersion.TLSv1_1
    server.context.set_ciphers("ALL:@SECLEVEL=0")
    refused(fetch.BadHostAnswer)
    assert server.requests == []


def test_an_unknown_authority_is_untrusted(server, refused, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    fetch._tls_context.cache_clear()
    assert "untrusted certificate" in str(refused(fetch.BadHostAnswer))
    assert server.requests == []


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", id="no TLS"),
        pytest.param(b"", id="closed"),
        pytest.param(b"\x15\x03\x03\x00\x02\x02\x28", id="handshake failure"),
        pytest.param(b"\x16\x03\x03\x40\x00\x02", id="half a handshake"),
        pytest.param(b"\x16\x03\x03\xff\xff" + bytes(65535), id="a record too large"),
    ],
)
def test_a_failed_handshake_is_a_broken_answer(server, refused, data):
    def fail(raw):
        raw.sendall(data)
        raw.shutdown(socket.SHUT_WR)

    server.before_handshake = fail
    refused(fetch.BadHostAnswer)
    assert server.requests == []


def test_a_closed_port_is_unreachable(server, refused):
    server.listener.shutdown(socket.SHUT_RDWR)
    server.close()
    assert refused(fetch.HostUnreachable).status == 504


def test_the_next_address_is_tried_when_one_does_not_answer(server, names, connections, png, answer):
    server.behave = lambda connection: answer(connection, png, length=len(png))
    names["pictures.test"] = [["127.0.0.9", "127.0.0.1"]]  # The recorder lets through only the second.
    entry = fetch.PrivateHost("pictures.test", server.port, ipaddress.ip_network("127.0.0.0/8"))
    picture = fetch.fetch_picture(
        f"https://pictures.test:{server.port}/",
        deadline=time.monotonic() + 5,
        max_bytes=MAX_BYTES,
        private_hosts=[entry],
    )
    assert picture.content == png
    assert connections == [("127.0.0.9", server.port), ("127.0.0.1", server.port)]


def test_proxies_of_the_environment_are_not_used(server, get, png, answer, monkeypatch, connections):
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    server.behave = lambda connection: answer(connection, png, length=len(png))
    assert get().content == png
