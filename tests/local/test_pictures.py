"""The picture host over real TLS."""

import http.client
import socket
import ssl
import urllib.error
import urllib.request

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local.pictures import PictureHost


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    host = PictureHost(tmp_path_factory.mktemp("state"))
    yield host
    host.stop()


def trusting(host) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(host.ca_file))


def fetch(host, url, method="GET"):
    request = urllib.request.Request(url, method=method)
    with urllib.request.urlopen(request, context=trusting(host), timeout=20) as response:
        return response.status, response.headers, response.read()


@pytest.mark.parametrize(
    ("name", "content_type"),
    [("a.png", "image/png"), ("b.jpg", "image/jpeg"), ("c.JPEG", "image/jpeg"), ("none", "application/octet-stream")],
)
def test_a_picture_comes_back_with_its_content_type(host, name, content_type):
    url = host.put(name, b"\x89PNG bytes")
    assert url == f"https://localhost:{host.port}/{name}"
    status, headers, body = fetch(host, url)
    assert (status, headers["Content-Type"], body) == (200, content_type, b"\x89PNG bytes")


@settings(deadline=None, max_examples=50)
@given(
    name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda name: name.lstrip("/")),
    body=st.binary(max_size=4000),
)
def test_whatever_was_put_comes_back(host, name, body):
    assert fetch(host, host.put(name, body))[2] == body


def test_putting_again_replaces(host):
    host.put("again.png", b"old")
    assert fetch(host, host.put("again.png", b"new"))[2] == b"new"


def test_head_has_the_length_and_no_body(host):
    url = host.put("head.png", b"12345")
    status, headers, body = fetch(host, url, "HEAD")
    assert (status, headers["Content-Length"], body) == (200, "5", b"")
    # On one connection: a body after HEAD would be taken for the next answer.
    connection = http.client.HTTPSConnection("localhost", host.port, context=trusting(host), timeout=20)
    connection.request("HEAD", "/head.png")
    connection.getresponse().read()
    connection.request("GET", "/head.png")
    assert connection.getresponse().read() == b"12345"
    connection.close()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_was_not_put_is_missing(host, method):
    with pytest.raises(urllib.error.HTTPError) as error:
        fetch(host, host.url + "/missing.png", method)
    assert error.value.code == 404
    error.value.close()


def test_other_methods_are_refused(host):
    with pytest.raises(urllib.error.HTTPError) as error:
        fetch(host, host.put("x.png", b"x"), "DELETE")
    assert error.value.code == 501
    error.value.close()


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_the_certificate_holds_for_name_and_address(host, name):
    connection = http.client.HTTPSConnection(name, host.port, context=trusting(host), timeout=20)
    connection.request("GET", host.put("x.png", b"x").removeprefix(host.url))
    assert connection.getresponse().status == 200
    connection.close()


def test_strict_verification_accepts_the_chain(host):
    context = trusting(host)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    with socket.create_connection(("127.0.0.1", host.port), 20) as raw:
        context.wrap_socket(raw, server_hostname="localhost").close()


def test_who_does_not_know_the_authority_refuses(host):
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        urllib.request.urlopen(host.put("x.png", b"x"), context=ssl.create_default_context(), timeout=20)


def test_a_silent_client_does_not_hold_up_the_others(host):
    with socket.create_connection(("127.0.0.1", host.port), 20):
        assert fetch(host, host.put("x.png", b"x"))[0] == 200


def test_the_key_is_private_and_the_authority_has_none(host):
    folder = host.ca_file.parent
    assert (folder / "server.key").stat().st_mode & 0o077 == 0
    assert sorted(path.name for path in folder.iterdir()) == ["ca.pem", "server.key", "server.pem"]


def test_stop_frees_the_port(tmp_path):
    host = PictureHost(tmp_path)
    host.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", host.port), 5)
    again = PictureHost(tmp_path, port=host.port)
    again.stop()
