"""What the fetch guard makes of hosts that answer badly, slowly, endlessly or not at all, over real TLS on loopback."""

import gzip
import ipaddress
import socket
import struct
import time

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
def refused(get):
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


def test_an_endless_body_is_cut_soon_after_the_limit(server, refused, png):
    sent = []

    def endless(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + png)
        while len(sent) < 1000:
            connection.sendall(bytes(65536))
            sent.append(65536)

    server.behave = endless
    refused(fetch.PictureTooLarge)
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


@pytest.mark.parametrize(
    "start",
    [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n\x89PNG\r\n\x1a\n"],
    ids=["status line", "headers", "body"],
)
def test_dripping_is_cut_at_the_deadline(server, refused, start):
    def drip(connection):
        connection.sendall(start)
        server.drip(connection, b"H")

    server.behave = drip
    assert refused(fetch.FetchTimeout, seconds=0.4).status == 504


def test_endless_interim_answers_are_cut_at_the_deadline_or_the_header_limit(server, refused):
    server.behave = lambda connection: server.drip(connection, b"HTTP/1.1 100 Continue\r\n\r\n")
    refused(fetch.FetchTimeout, seconds=0.4)


def test_a_host_that_never_shakes_hands_is_cut_at_the_deadline(server, refused):
    server.before_handshake = lambda _raw: server.stopping.wait(5)
    assert refused(fetch.FetchTimeout, seconds=0.4).status == 504


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


def test_a_certificate_for_another_name_is_untrusted(tls_server, names, connections, png, answer):
    stranger = tls_server("stranger")
    stranger.behave = lambda connection: answer(connection, png, length=len(png))
    entry = fetch.PrivateHost("pictures.test", stranger.port, LOOPBACK)
    with pytest.raises(fetch.BadHostAnswer, match="untrusted certificate"):
        fetch.fetch_picture(
            f"https://pictures.test:{stranger.port}/",
            deadline=time.monotonic() + 5,
            max_bytes=MAX_BYTES,
            private_hosts=[entry],
        )
    assert stranger.requests == []


def test_an_unknown_authority_is_untrusted(server, refused, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    fetch._tls_context.cache_clear()
    assert "untrusted certificate" in str(refused(fetch.BadHostAnswer))
    assert server.requests == []


def test_a_host_without_tls_is_a_broken_answer(server, refused):
    server.before_handshake = lambda raw: raw.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    refused(fetch.BadHostAnswer)


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
