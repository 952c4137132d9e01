"""Every vector of fetch_vectors.tsv is refused, and what it aims at is never connected to.

A line of the table is a kind, a vector as it stands inside a JSON string, and why it is forbidden. Of the kinds,

    address    is what the name of a public host resolves to;
    rebinding  is what it resolves to the first time, `then` the second, an answer holding one address or several;
    url        is what the caller writes;
    redirect   is the status and a header with which an allowed host answers;
    encoding   is a header with which it sends a body.

Sources of the facts: IANA's IPv4 and IPv6 Special-Purpose Address Registries, the WHATWG URL tests, RFC 9110 and 9112.
"""

import csv
import gzip
import ipaddress
import json
import re
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import fetch
import pytest

ROOT = Path(__file__).parents[2]
LOOPBACK = ipaddress.ip_network("127.0.0.1/32")
BOMB = gzip.compress(bytes(1024 * 1024))


class Vector(NamedTuple):
    """A line of the table."""

    kind: str
    text: str
    why: str


def read_vectors() -> list[Vector]:
    with Path(__file__).with_name("fetch_vectors.tsv").open(encoding="ascii", newline="") as file:
        _, *lines = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
    return [Vector(kind, json.loads(f'"{text}"'), why) for kind, text, why in lines]


VECTORS = read_vectors()


def of_kind(kind: str):
    return pytest.mark.parametrize("vector", [v for v in VECTORS if v.kind == kind], ids=lambda v: ascii(v.text)[:60])


@pytest.fixture(autouse=True)
def counted(request):
    """Lets `python -m security` count in the tests' report which vectors were tried, and which refused."""
    if vector := request.node.callspec.params.get("vector") if hasattr(request.node, "callspec") else None:
        request.node.user_properties.append(("fetch_vector", vector.kind))


def fetched(url: str, private_hosts=()) -> fetch.Picture:
    return fetch.fetch_picture(url, deadline=time.monotonic() + 5, max_bytes=2_000_000, private_hosts=private_hosts)


@of_kind("url")
def test_a_forbidden_url_is_denied_without_a_connection(vector, names, connections):
    names["pictures.test"] = [["1.1.1.1"]]  # What passes by mistake is connected to.
    with pytest.raises(fetch.FetchDenied) as refusal:
        fetched(vector.text)
    assert refusal.value.status == 403
    assert "secret" not in str(refusal.value)
    assert connections == []


@of_kind("address")
def test_a_host_with_a_forbidden_address_is_denied_without_a_connection(vector, names, connections):
    # Alone, and on either side of a public one.
    for answer in ([vector.text], ["1.1.1.1", vector.text], [vector.text, "1.1.1.1"]):
        names["pictures.test"] = [answer]
        with pytest.raises(fetch.FetchDenied, match="not public") as refusal:
            fetched("https://pictures.test/a.png")
        assert (refusal.value.status, refusal.value.host) == (403, "pictures.test")
    assert connections == []


@of_kind("rebinding")
def test_a_host_that_changes_its_address_is_never_found_at_the_forbidden_one(vector, names, connections):
    first, *later = [answer.split() for answer in vector.text.split(" then ")]
    names["pictures.test"] = [first, *later]
    # The recorder lets no connection leave this machine, so that a host which passes is unreachable.
    with pytest.raises(fetch.HostUnreachable if later else fetch.FetchDenied):
        fetched("https://pictures.test/a.png")
    assert connections == ([(address, 443) for address in first] if later else [])
    if later:
        assert names["pictures.test"] == later  # Never asked for.


@pytest.fixture
def server(tls_server, names):
    return tls_server()


def refused_by(server, *kinds: type[fetch.Refusal]) -> None:
    with pytest.raises(kinds):
        fetched(f"https://pictures.test:{server.port}/", [fetch.PrivateHost("pictures.test", server.port, LOOPBACK)])


@of_kind("redirect")
def test_a_host_cannot_lead_elsewhere(vector, server, answer, connections):
    status, header = vector.text.split(" ", 1)
    page = b'<meta http-equiv="refresh" content="0; url=https://10.0.0.1/">'
    server.behave = lambda connection: answer(connection, page, header, status=f"{status} So", length=len(page))
    refused_by(server, fetch.BadHostAnswer, fetch.NotAPicture)
    assert connections == [("127.0.0.1", server.port)]
    assert len(server.requests) == 1


@of_kind("encoding")
def test_an_answer_that_can_be_read_in_two_ways_is_refused_unread(vector, server, png, answer, connections):
    server.behave = lambda connection: answer(connection, png + BOMB, vector.text)
    refused_by(server, fetch.BadHostAnswer)
    assert connections == [("127.0.0.1", server.port)]


def test_the_table_is_as_large_as_is_said():
    """150 are promised; where a text of the project names their number, it is the table's."""
    assert len({(vector.kind, vector.text) for vector in VECTORS}) == len(VECTORS) >= 150
    assert all(vector.why for vector in VECTORS)
    assert set(Counter(vector.kind for vector in VECTORS)) == {"url", "address", "rebinding", "redirect", "encoding"}
    said = [
        number
        for name in ("README.md", "SECURITY.md")
        for number in re.findall(r"([0-9,]+)\s+(?:fetch\s+)?vectors", (ROOT / name).read_text())
    ]
    assert said and {number.replace(",", "") for number in said} == {str(len(VECTORS))}
