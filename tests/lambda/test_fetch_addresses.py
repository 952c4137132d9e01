"""Which URLs and addresses the fetch guard lets through; what it refuses is in test_fetch_vectors.py."""

import ipaddress
import json
import time

import fetch
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

PUBLIC_ADDRESSES = """
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.1 52.216.0.1 100.63.255.255 100.128.0.1 126.255.255.255 128.0.0.1 169.253.255.255
169.255.0.1 172.15.255.255 172.32.0.1 192.0.1.1 192.88.98.1 192.167.255.255 198.17.255.255 198.20.0.1 223.255.255.255
2001:200::1 2001:4860:4860::8888 2003::1 2600:1f18::1 2606:4700::1111 2a00:1450::1 3ffe::1
""".split()  # noqa: SIM905 - a table is read more easily than a list of strings


def soon() -> float:
    return time.monotonic() + 5


def fetch_now(url: str, private_hosts=()):
    return fetch.fetch_picture(url, deadline=soon(), max_bytes=1000, private_hosts=private_hosts)


@pytest.mark.parametrize("address", PUBLIC_ADDRESSES)
def test_public_address_is_connected_to_and_no_other(address, names, connections):
    names["pictures.test"] = [[address]]
    with pytest.raises(fetch.HostUnreachable):  # The recorder refuses what would leave the machine.
        fetch_now("https://pictures.test/a.png")
    assert connections == [(address, 443)]


def test_unknown_name_is_unreachable(names, connections):
    with pytest.raises(fetch.HostUnreachable, match="no address") as refusal:
        fetch_now("https://nowhere.test/a.png?token=secret")
    assert refusal.value.status == 504
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("https://Pictures.TEST", "pictures.test", 443, "/"),
        ("HTTPS://pictures.test./a.png", "pictures.test", 443, "/a.png"),
        ("https://pictures.test:/a", "pictures.test", 443, "/a"),
        ("https://pictures.test:0443/a?x=@/y#z?@", "pictures.test", 443, "/a?x=@/y"),
        ("https://pictures.test?x", "pictures.test", 443, "/?x"),
        ("https://my_bucket.s3.amazonaws.com/@a:b", "my_bucket.s3.amazonaws.com", 443, "/@a:b"),
        ("https://xn--bcher-kva.test/%C3%A9", "xn--bcher-kva.test", 443, "/%C3%A9"),
        ("https://1.1.1.1/", "1.1.1.1", 443, "/"),
        ("https://4chan.test:8443/", "4chan.test", 8443, "/"),
    ],
)
def test_plain_urls_are_taken_apart(url, host, port, path):
    assert fetch.parse_url(url) == fetch.Target(host, port, path)


def test_a_url_has_a_greatest_length():
    longest = "https://pictures.test/".ljust(8192, "a")
    assert fetch.parse_url(longest).host == "pictures.test"
    with pytest.raises(fetch.FetchDenied, match="8193 characters"):
        fetch.parse_url(longest + "a")


PRIVATE = fetch.PrivateHost("inside.test", 8443, ipaddress.ip_network("10.1.0.0/16"))


@pytest.mark.parametrize("address", ["10.2.0.1", "127.0.0.1", "1.1.1.1", "169.254.169.254", "::ffff:10.1.0.1"])
def test_a_private_host_outside_its_cidr_is_denied(address, names, connections):
    names["inside.test"] = [["10.1.0.1", address]]
    with pytest.raises(fetch.FetchDenied):
        fetch_now("https://inside.test:8443/", [PRIVATE])
    assert connections == []


def test_a_private_host_is_connected_to_within_its_cidr_on_its_port_only(names, connections):
    names["inside.test"] = [["10.1.2.3"]]
    with pytest.raises(fetch.HostUnreachable):
        fetch_now("https://Inside.test.:8443/", [PRIVATE])
    for url in ("https://inside.test/", "https://inside.test:8444/", "https://other.inside.test:8443/"):
        with pytest.raises(fetch.FetchDenied):
            fetch_now(url, [PRIVATE])
    assert connections == [("10.1.2.3", 8443)]


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "169.254.170.2", "0.0.0.0", "224.0.0.1", "fd00:ec2::254", "fe80::1"]
)
def test_no_private_host_entry_opens_the_metadata_addresses(address, names, connections):
    everything = "::/0" if ":" in address else "0.0.0.0/0"
    names["inside.test"] = [[address]]
    with pytest.raises(fetch.FetchDenied):
        fetch_now("https://inside.test/", [fetch.PrivateHost("inside.test", 443, ipaddress.ip_network(everything))])
    assert connections == []


def test_private_hosts_are_read_from_json():
    text = '[{"host": "Inside.test.", "port": 8443, "cidr": "10.1.0.0/16"}]'
    assert fetch.parse_private_hosts(text) == (PRIVATE,)
    assert fetch.parse_private_hosts("[]") == ()


@pytest.mark.parametrize("text", ["", "{}", "null", "[1]", "[{}]"])
def test_what_is_no_list_of_private_hosts_is_refused_with_a_remedy(text):
    with pytest.raises(ValueError, match=r"PRIVATE_HOSTS .*write"):
        fetch.parse_private_hosts(text)


@pytest.mark.parametrize(
    "wrong",
    [{"host": "[::1]"}, {"host": 1}, {"port": "b"}, {"port": None}, {"cidr": "10.0.0.1/8"}, {"cidr": None}],
    ids=repr,
)
def test_a_wrong_field_of_a_private_host_is_refused_by_its_place(wrong):
    entry = {"host": "inside.test", "port": 443, "cidr": "10.0.0.0/8"}
    assert fetch.parse_private_hosts(json.dumps([entry]))
    with pytest.raises(ValueError, match="entry 1 is not") as error:
        fetch.parse_private_hosts(json.dumps([entry, entry | wrong]))
    assert "inside.test" not in str(error.value)


@settings(deadline=None)  # A busy machine is no failure.
@given(st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address) | st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address))
def test_what_python_calls_special_is_never_public(address):
    kinds = "private", "loopback", "link_local", "multicast", "reserved", "unspecified"
    if any(getattr(address, f"is_{kind}") for kind in kinds):
        assert not fetch.is_public(address)
