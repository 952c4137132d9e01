"""Which URLs and addresses the fetch guard lets through. Ranges: the IANA special-purpose address registries."""

import ipaddress
import json
import time

import fetch
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

DENIED_ADDRESSES = """
0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 100.127.255.255 127.0.0.1 127.0.0.2 127.255.255.254
169.254.0.1 169.254.169.254 169.254.170.2 169.254.169.253 169.254.169.123 172.16.0.1 172.31.255.255 192.0.0.1
192.0.0.8 192.0.0.170 192.0.0.192 192.0.2.1 192.88.99.1 192.168.0.1 192.168.255.255 198.18.0.1 198.19.255.255
198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255
:: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:8.8.8.8 ::ffff:0:127.0.0.1
64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b::808:808 64:ff9b:1::a00:1 100::1 100:0:0:1::1 2001::1
2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:2::1 2001:10::1 2001:20::1 2001:db8::1 2002:7f00:1::1 2002:a00:1::1
2002:a9fe:a9fe::1 3fff::1 4000::1 5f00::1 fc00::1 fd00::1 fd00:ec2::254 fd00:ec2::23 fd12:3456:789a::1 fe80::1
fe80::1%eth0 fec0::1 feff::1 ff02::1 ff05::2 ff0e::1
""".split()  # noqa: SIM905 - a table is read more easily than a list of strings
PUBLIC_ADDRESSES = """
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.1 52.216.0.1 100.63.255.255 100.128.0.1 126.255.255.255 128.0.0.1 169.253.255.255
169.255.0.1 172.15.255.255 172.32.0.1 192.0.1.1 192.88.98.1 192.167.255.255 198.17.255.255 198.20.0.1 223.255.255.255
2001:200::1 2001:4860:4860::8888 2003::1 2600:1f18::1 2606:4700::1111 2a00:1450::1 3ffe::1
""".split()  # noqa: SIM905 - a table is read more easily than a list of strings
DENIED_URLS = [
    # Another scheme, or none.
    *("http://pictures.test/a.png", "ftp://pictures.test/a.png", "file:///proc/self/environ", "file:///etc/passwd"),
    *("gopher://127.0.0.1:9001/_GET", "data:image/png;base64,iVBORw0KGgo=", "jar:https://pictures.test!/", "dict://x/"),
    *("//pictures.test/a.png", "pictures.test/a.png", "https:pictures.test", "https:/pictures.test/", "ws://x/"),
    *(" https://pictures.test/", "\thttps://pictures.test/", "\x00https://pictures.test/", "https//x", "not a url"),
    # No name, or two readings of it.
    *("https://", "https:///a.png", "https://?x", "https://#x", "https://:443/", "https://./", "https://../"),
    *("https://user@pictures.test/", "https://user:secret@pictures.test/", "https://@pictures.test/"),
    *("https://pictures.test@169.254.169.254/", "https://169.254.169.254#@pictures.test/", "https://a@b@127.0.0.1/"),
    *("https://pictures.test\\@169.254.169.254/", "https://pictures.test\\.evil.test/", "https:\\\\127.0.0.1\\"),
    *("https://127.0.0.1\\.pictures.test/", "https://pictures.test/a\\b.png", "https://127.0.0.1%2f@pictures.test/"),
    *("https://pictures.test%00.evil.test/", "https://pictures%2etest/", "https://%31%32%37.0.0.1/"),
    *("https://pictures.test/\r\nHost: evil", "https://pictures.test/a b.png", "https://pict\tures.test/"),
    *("https://pictures.test/\x7f", "https://pictures.test\n/", "https://pictures.test/\u2028", "https://\u24df.test/"),
    *(
        "https://pictures\u3002test/",
        "https://\uff11\uff12\uff17.0.0.1/",
        "https://p\u0456ctures.test/",
        "https://\u00ad/",
    ),
    *("https://a..b/", "https://-a.test/", "https://a-.test/", f"https://{'a' * 64}.test/", f"https://{'a.' * 130}b/"),
    *("https://a,b/", "https://a;b/", "https://a!b/", "https://[pictures.test]/", "https://pictures.test:443:80/"),
    # Numbers in disguise.
    *("https://2130706433/", "https://0x7f000001/", "https://017700000001/", "https://127.1/", "https://127.0.1/"),
    *("https://0177.0.0.1/", "https://0x7f.0.0.1/", "https://0x7f.1/", "https://127.0.0.01/", "https://0/"),
    *("https://0x/", "https://1.2.3.4.5/", "https://256.256.256.256/", "https://00000177.0.0.1/", "https://a.0x10/"),
    *("https://2852039166/", "https://0xa9fea9fe/", "https://0xA9.0xFE.0xA9.0xFE/", "https://169.254.43518/"),
    *("https://0251.0376.0251.0376/", "https://169.16689662/", "https://4294967296/", "https://127.0.0.1../"),
    # IPv6 in brackets.
    *(
        "https://[::1]/",
        "https://[::]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[fe80::1%25eth0]/",
        "https://[::1]:443/",
    ),
    *("https://[fd00:ec2::254]/", "https://[0:0:0:0:0:ffff:a9fe:a9fe]/", "https://[::127.0.0.1]/", "https://::1/"),
    *("https://[64:ff9b::7f00:1]/", "https://[v1.fe80]/", "https://[/", "https://]/", "https://[2606:4700::1111]/"),
    # Ports.
    *("https://pictures.test:80/", "https://pictures.test:22/", "https://pictures.test:8443/", "https://x:0/"),
    *(
        "https://pictures.test:65979/",
        "https://pictures.test:999999/",
        "https://pictures.test:-443/",
        "https://x:4 43/",
    ),
    *("https://pictures.test:443a/", "https://pictures.test:+443/", "https://pictures.test:0x1bb/"),
    # Addresses, plainly.
    *("https://127.0.0.1/", "https://127.0.0.1:443/", "https://127.0.0.1./", "https://10.0.0.1/", "https://0.0.0.0/"),
    *("https://169.254.169.254/latest/meta-data/", "https://169.254.170.2/v2/credentials", "https://192.168.1.1/"),
]


def soon() -> float:
    return time.monotonic() + 5


def fetch_now(url: str, private_hosts=()):
    return fetch.fetch_picture(url, deadline=soon(), max_bytes=1000, private_hosts=private_hosts)


@pytest.mark.parametrize("address", DENIED_ADDRESSES)
def test_special_address_is_not_public(address, names, connections):
    names["pictures.test"] = [[address]]
    with pytest.raises(fetch.FetchDenied, match="not public") as refusal:
        fetch_now("https://pictures.test/a.png")
    assert (refusal.value.status, refusal.value.host) == (403, "pictures.test")
    assert connections == []


@pytest.mark.parametrize("address", PUBLIC_ADDRESSES)
def test_public_address_is_connected_to_and_no_other(address, names, connections):
    names["pictures.test"] = [[address]]
    with pytest.raises(fetch.HostUnreachable):  # The recorder refuses what would leave the machine.
        fetch_now("https://pictures.test/a.png")
    assert connections == [(address, 443)]


@pytest.mark.parametrize("address", DENIED_ADDRESSES)
@pytest.mark.parametrize("place", [0, 1])
def test_one_special_address_among_public_ones_denies_the_host(address, place, names, connections):
    addresses = ["1.1.1.1"]
    addresses.insert(place, address)
    names["pictures.test"] = [addresses]
    with pytest.raises(fetch.FetchDenied):
        fetch_now("https://pictures.test/a.png")
    assert connections == []


@pytest.mark.parametrize("url", DENIED_URLS)
def test_url_is_denied_without_a_connection(url, names, connections):
    with pytest.raises(fetch.FetchDenied) as refusal:
        fetch_now(url)
    assert refusal.value.status == 403
    assert "secret" not in str(refusal.value)
    assert connections == []


def test_a_name_that_resolves_differently_the_second_time_is_asked_once(names, connections):
    names["pictures.test"] = [["1.1.1.1"], ["169.254.169.254"]]
    with pytest.raises(fetch.HostUnreachable):
        fetch_now("https://pictures.test/a.png")
    assert connections == [("1.1.1.1", 443)]
    assert names["pictures.test"] == [["169.254.169.254"]]


def test_unknown_name_is_unreachable(names, connections):
    with pytest.raises(fetch.HostUnreachable, match="no address") as refusal:
        fetch_now("https://nowhere.test/a.png?token=secret")
    assert refusal.value.status == 504
    assert "secret" not in str(refusal.value)


def test_a_resolver_that_hangs_is_cut_at_the_deadline(monkeypatch):
    monkeypatch.setattr(fetch.socket, "getaddrinfo", lambda *_args, **_kwargs: time.sleep(3))
    with pytest.raises(fetch.FetchTimeout):
        fetch.fetch_picture("https://pictures.test/", deadline=time.monotonic() + 0.1, max_bytes=1000)


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


url_pieces = st.sampled_from([*"/\\@:?#[]%.&= \t\r\n\x00", "https://", "http:", "127.0.0.1", "a.test", "0x7f", "443"])
hostile_urls = st.text() | st.lists(url_pieces | st.text(max_size=3), max_size=12).map("".join)


@settings(deadline=None)  # A busy machine is no failure.
@given(hostile_urls | hostile_urls.map("https://".__add__))
def test_any_text_is_a_plain_target_or_denied(url):
    try:
        target = fetch.parse_url(url)
    except fetch.FetchDenied as refusal:
        assert refusal.status == 403
    else:
        assert target.path.startswith("/")
        assert target.path.isascii() and not any(character.isspace() for character in target.path)
        assert set(target.host) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-_")
        assert fetch.parse_url(f"https://{target.host}:{target.port}{target.path}") == target


def test_there_are_enough_vectors():
    assert len(set(DENIED_ADDRESSES)) + len(set(DENIED_URLS)) >= 150
