"""Fetch one picture from a URL that a stranger wrote, without reaching anything the stranger should not reach.

Why not urllib or requests behind a check of the URL: the name is then resolved a second time (rebinding), redirects
and proxies lead elsewhere, another parser reads the URL differently, and no timeout covers the whole exchange. Here
the name is resolved once, every address of it must pass, the connection goes to an address that passed, and one
deadline covers resolving, connecting, the TLS handshake, the headers and the body.

Address ranges: IANA IPv4 and IPv6 Special-Purpose Address Registries.
"""

import functools
import http.client
import io
import ipaddress
import json
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Result = TypeVar("Result")

HTTPS_PORT = 443
MAX_URL_CHARACTERS = 8192
MAX_HEADER_BYTES = 32 * 1024
SIGNATURES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}

# ipaddress.is_global is asked too, but alone it admits multicast, the 6to4 relays and, in Python 3.11 and 3.12,
# several translation prefixes through which an IPv4 address can be reached.
DENIED_IPV4 = [
    ipaddress.IPv4Network(cidr)
    for cidr in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    )
]
GLOBAL_UNICAST_IPV6 = ipaddress.IPv6Network("2000::/3")
# Protocol assignments with Teredo, documentation (twice), 6to4.
DENIED_IPV6 = [ipaddress.IPv6Network(cidr) for cidr in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")]
# AWS's metadata, time and resolver addresses, and what is no host's address: no PRIVATE_HOSTS entry opens these.
NEVER_PRIVATE = [
    ipaddress.ip_network(cidr) for cidr in ("0.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "fe80::/10", "fd00:ec2::/32")
]


class Refusal(Exception):
    """Why a request is not answered with logits: an HTTP status, a stable code and a message.

    The message may be sent and logged: it holds no user name, password or query string. `host` is the host's name
    once the URL has been understood, else None.
    """

    status = 500
    code = "refused"

    def __init__(self, message: str, host: str | None = None):
        super().__init__(message)
        self.host = host


class FetchDenied(Refusal):
    """The URL or an address behind it is not allowed; nothing was connected to."""

    status, code = 403, "fetch_denied"


class FetchTimeout(Refusal):
    """The deadline came before the whole picture did."""

    status, code = 504, "fetch_timeout"


class HostUnreachable(Refusal):
    """The name does not resolve, or no connection could be made."""

    status, code = 504, "host_unreachable"


class BadHostAnswer(Refusal):
    """Anything but a complete, plain 200: another status, a redirect, an encoding, a cut, an untrusted certificate."""

    status, code = 502, "bad_host_answer"


class PictureTooLarge(Refusal):
    """More bytes than allowed."""

    status, code = 413, "picture_too_large"


class NotAPicture(Refusal):
    """The first bytes are neither a JPEG's nor a PNG's."""

    status, code = 415, "not_a_picture"


class Picture(NamedTuple):
    """An encoded picture; content_type, image/jpeg or image/png, is what its first bytes say."""

    content: bytes | bytearray
    content_type: str


class PrivateHost(NamedTuple):
    """A host inside the VPC that may be fetched from, if all its addresses lie in `network`."""

    host: str
    port: int
    network: Network

    def admits(self, address: Address) -> bool:
        return address in self.network and not any(address in network for network in NEVER_PRIVATE)


class Target(NamedTuple):
    """A URL taken apart: lower-case host without trailing dot, port, path with query as it is sent."""

    host: str
    port: int
    path: str

    def __str__(self) -> str:
        """The URL without its query, for messages."""
        port = "" if self.port == HTTPS_PORT else f":{self.port}"
        return f"https://{self.host}{port}{self.path.partition('?')[0][:200]}"


def parse_private_hosts(text: str) -> tuple[PrivateHost, ...]:
    """Read PRIVATE_HOSTS, a JSON list of {"host", "port", "cidr"}.

    ValueError names what is wrong by its place only, since the message may reach a caller.
    """
    remedy = 'write [{"host": "pictures.internal", "port": 443, "cidr": "10.0.0.0/24"}], or [] for none'
    try:
        entries = json.loads(text)
    except ValueError:
        entries = None
    if not isinstance(entries, list):
        raise ValueError(f"PRIVATE_HOSTS is not a JSON list: {remedy}")
    hosts = []
    for position, entry in enumerate(entries):
        try:
            network = ipaddress.ip_network(entry["cidr"])
            hosts.append(PrivateHost(_host_name(entry["host"]), int(entry["port"]), network))
        except (AttributeError, KeyError, TypeError, ValueError, FetchDenied) as error:
            raise ValueError(f"PRIVATE_HOSTS entry {position} is not a host, a port and a cidr: {remedy}") from error
    return tuple(hosts)


def fetch_picture(url: str, *, deadline: float, max_bytes: int, private_hosts: Sequence[PrivateHost] = ()) -> Picture:
    """Fetch a JPEG or PNG of at most max_bytes bytes over HTTPS; `deadline` is a time.monotonic() value in seconds.

    Certificates are verified against the system's authorities, or SSL_CERT_FILE. Redirects are not followed and
    proxies not used. Raises a Refusal of this module for whatever goes wrong.
    """
    target = parse_url(url)
    private = next((entry for entry in private_hosts if (entry.host, entry.port) == (target.host, target.port)), None)
    if private is None and target.port != HTTPS_PORT:
        raise FetchDenied(f"{target}: port {target.port} is not allowed: use port {HTTPS_PORT}", target.host)
    try:
        with _connect(target, _allowed_addresses(target, private, deadline), deadline) as connection:
            return _exchange(target, connection, deadline, max_bytes)
    except TimeoutError as error:
        raise FetchTimeout(f"{target}: no whole picture in time: use a faster host", target.host) from error
    except ssl.SSLCertVerificationError as error:
        raise BadHostAnswer(f"{target}: untrusted certificate: {error.verify_message}", target.host) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise BadHostAnswer(
            f"{target}: broken answer ({type(error).__name__}): check that the host serves the picture", target.host
        ) from error


def parse_url(url: str) -> Target:
    """Take an https URL apart, strictly: what two parsers could read differently is denied."""
    scheme, separator, rest = url.partition("://")
    if scheme.lower() != "https" or not separator:
        raise FetchDenied("the url does not begin with https://: only https pictures are fetched")
    if len(url) > MAX_URL_CHARACTERS:
        raise FetchDenied(f"the url has {len(url)} characters: use at most {MAX_URL_CHARACTERS}")
    if re.search(r"[^!-~]|\\", rest):
        raise FetchDenied("the url has a space, control character, backslash or non-ASCII character: percent-encode it")
    authority, path = re.fullmatch(r"([^/?#]*)([^#]*)(?:#.*)?", rest).groups()
    if "@" in authority:
        raise FetchDenied("the url has a user name or password: remove what stands before the @")
    match = re.fullmatch(r"([A-Za-z0-9._-]+)(?::([0-9]{0,5}))?", authority)
    if not match:
        raise FetchDenied("the url's host is not a plain name: use a DNS name, as in https://example.com/picture.jpg")
    host, port = match.groups()
    return Target(_host_name(host), int(port or HTTPS_PORT), path if path.startswith("/") else "/" + path)


def _host_name(host: str) -> str:
    """Lower-case name without its final dot; a name that ends in a number must be a plain dotted quad.

    getaddrinfo reads 0x7f.1, 017700000001 or 2130706433 as addresses; such a host means to deceive.
    """
    name = host.lower().removesuffix(".")
    labels = name.split(".")
    if len(name) > 253 or not all(re.fullmatch(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", label) for label in labels):
        raise FetchDenied("the url's host is not a valid DNS name: check its spelling")
    if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", labels[-1]):
        try:
            ipaddress.IPv4Address(name)
        except ValueError:
            raise FetchDenied("the url's host is a number in disguise: use a DNS name") from None
    return name


def is_public(address: Address) -> bool:
    """Whether an address is an ordinary public one, on which nothing of this account's or host's inside answers."""
    if not address.is_global:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in DENIED_IPV4)
    return address in GLOBAL_UNICAST_IPV6 and not any(address in network for network in DENIED_IPV6)


Outcome = queue.SimpleQueue[tuple[Any, BaseException | None]]
Worker = queue.SimpleQueue[tuple[Callable[[], Any], Outcome]]
# Threads that wait for their next call, since starting one costs more than most calls; a thread whose caller has given
# up comes back here when its call ends.
_idle: list[Worker] = []


def run_until(deadline: float, function: Callable[[], Result]) -> Result:
    """The function's result or exception, or TimeoutError once the deadline (time.monotonic() seconds) has passed.

    For calls without a timeout of their own. After a TimeoutError the call goes on in its daemon thread, unheard.
    """
    seconds = _remaining(deadline)
    outcome: Outcome = queue.SimpleQueue()
    try:
        worker = _idle.pop()
    except IndexError:
        worker = queue.SimpleQueue()
        threading.Thread(target=_work, args=(worker,), daemon=True).start()
    worker.put((function, outcome))
    try:
        result, error = outcome.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return result


def _work(calls: Worker) -> None:
    while True:
        function, outcome = calls.get()
        try:
            result = function(), None
        except BaseException as error:  # Handed to the caller, who is in another thread.
            result = None, error
        _idle.append(calls)
        outcome.put(result)
        del function, outcome, result  # They may hold a picture.


def _remaining(deadline: float) -> float:
    """Seconds left, more than 0 (a socket timeout of 0 would mean non-blocking); TimeoutError if there are none."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def _allowed_addresses(target: Target, private: PrivateHost | None, deadline: float) -> list[Address]:
    """Resolve once; every address must pass, since one that passes may stand beside one that is the real aim."""
    try:
        found = run_until(deadline, lambda: socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM))
    except (socket.gaierror, UnicodeError) as error:
        raise HostUnreachable(f"{target}: the host has no address: check its spelling", target.host) from error
    addresses = list(dict.fromkeys(ipaddress.ip_address(entry[4][0]) for entry in found))
    admits = private.admits if private else is_public
    if not addresses or not all(map(admits, addresses)):
        raise FetchDenied(
            f"{target}: the host has an address that is not public: use a public host, or have it listed in "
            "PRIVATE_HOSTS",
            target.host,
        )
    return addresses


def _connect(target: Target, addresses: list[Address], deadline: float) -> ssl.SSLSocket:
    """A verified TLS connection to the first address that answers, under the host's own name."""
    for position, address in enumerate(addresses):
        raw = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
        try:
            # An equal share of the time each, so that a silent first address leaves some for the next.
            raw.settimeout(_remaining(deadline) / (len(addresses) - position))
            raw.connect((str(address), target.port))
        except OSError as error:
            raw.close()
            failure = error
            continue
        try:
            raw.settimeout(_remaining(deadline))
            # Ragged ends are errors: else whoever cuts the line decides where a picture without length ends.
            connection = _tls_context().wrap_socket(raw, server_hostname=target.host, suppress_ragged_eofs=False)
            connection.settimeout(_remaining(deadline))
            return connection
        except BaseException:
            raw.close()
            raise
    _remaining(deadline)
    raise HostUnreachable(f"{target}: cannot connect: check that the host is up", target.host) from failure


@functools.cache
def _tls_context() -> ssl.SSLContext:
    return ssl.create_default_context()


def _exchange(target: Target, connection: ssl.SSLSocket, deadline: float, max_bytes: int) -> Picture:
    """Send the request and read the answer, both within the deadline and the byte cap."""
    host = target.host if target.port == HTTPS_PORT else f"{target.host}:{target.port}"
    connection.sendall(
        f"GET {target.path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: terraform-aws-image-classifier\r\n"
        "Accept: image/jpeg, image/png\r\nAccept-Encoding: identity\r\nConnection: close\r\n\r\n".encode("ascii")
    )
    stream = _DeadlineStream(connection, deadline, MAX_HEADER_BYTES)
    with http.client.HTTPResponse(stream, method="GET") as response:
        response.begin()
        _check_headers(target, response)
        too_large = PictureTooLarge(f"{target}: more than {max_bytes} bytes: use a smaller picture", target.host)
        if (response.length or 0) > max_bytes:
            raise too_large
        # An eighth more leaves room for the framing of chunks of 48 bytes and above, and none for an endless one.
        stream.allowance = max_bytes + max_bytes // 8 + MAX_HEADER_BYTES
        stream.overrun = too_large
        stream.end_allowed = True
        content = response.read(max(map(len, SIGNATURES)))
        content_type = next((kind for signature, kind in SIGNATURES.items() if content.startswith(signature)), None)
        if content_type is None:
            raise NotAPicture(f"{target}: neither a JPEG nor a PNG: use the address of the picture itself", target.host)
        size = len(content)
        # Read in place: the picture is in memory once, and these very bytes are hashed and sent to the endpoint.
        buffer = bytearray(max_bytes + 1 if response.length is None else size + response.length)
        buffer[:size] = content
        with memoryview(buffer) as view:
            while size < len(buffer) and (count := response.readinto(view[size:])):
                size += count
        if size > max_bytes:
            raise too_large
        if response.length:
            raise BadHostAnswer(f"{target}: ended {response.length} bytes before its Content-Length", target.host)
        del buffer[size:]
        return Picture(buffer, content_type)


def _check_headers(target: Target, response: http.client.HTTPResponse) -> None:
    """Only a plain 200 passes, whose length is stated in one way."""
    if 300 <= response.status < 400:
        raise BadHostAnswer(
            f"{target}: answered with a redirect ({response.status}), which is not followed: use the address it "
            "leads to",
            target.host,
        )
    if response.status != 200:
        raise BadHostAnswer(f"{target}: answered {response.status} instead of 200", target.host)
    encodings = response.headers.get_all("Content-Encoding", [])
    transfers = response.headers.get_all("Transfer-Encoding", [])
    lengths = set(response.headers.get_all("Content-Length", []))
    plain = all(encoding.strip().lower() in ("", "identity") for encoding in encodings)
    framed = [transfer.strip().lower() for transfer in transfers] in ([], ["chunked"])
    if not plain or not framed or len(lengths) > 1 or not all(re.fullmatch("[0-9]{1,18}", item) for item in lengths):
        raise BadHostAnswer(
            f"{target}: answered with an encoding that was not asked for, or an unclear length", target.host
        )


class _DeadlineStream(io.RawIOBase):
    """A TLS connection as http.client reads it: each read gets only what is left of the time and of the bytes."""

    def __init__(self, connection: ssl.SSLSocket, deadline: float, allowance: int):
        self.connection = connection
        self.deadline = deadline
        self.allowance = allowance
        self.overrun: Exception = http.client.HTTPException("headers too long")
        self.end_allowed = False

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.connection.settimeout(_remaining(self.deadline))
        count = self.connection.recv_into(buffer)
        self.allowance -= count
        if self.allowance < 0:
            raise self.overrun
        if not count and not self.end_allowed:
            # http.client would take the end of the line for the end of the headers.
            raise http.client.RemoteDisconnected("closed before the end of the headers")
        return count
