"""Measuring: the search for the highest rate, the open loop, the signature, and a real run against small servers."""

import asyncio
import hashlib
import hmac
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capacity import invocation, load, profile
from capacity.__main__ import main
from capacity.invocation import Invocation
from capacity.measure import Bracket, Limits, OutOfBudget, bracket, highest_rate, simulated_p99, slowdown, summary

JPEG = b"\xff\xd8\xff\xe0 and more"


class Server(ThreadingHTTPServer):
    """Answers after `seconds` in one of `workers`; more than `queue` waiting are refused with 503."""

    daemon_threads, request_queue_size = True, 256

    def __init__(self, seconds: float = 0.0, workers: int = 1, queue: int = 1000, status: int = 200) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seconds, self.status, self.headers = seconds, status, []
        self.places, self.workers = threading.BoundedSemaphore(workers + queue), threading.BoundedSemaphore(workers)
        self.stalled = threading.Event()
        self.stalled.set()

    def handle_error(self, *arguments: object) -> None:
        """A client that did not wait is no error here."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        self.server.headers.append(dict(self.headers))
        self.rfile.read(int(self.headers["Content-Length"]))
        if not self.server.places.acquire(blocking=False):
            self.reply(503)
            return
        with self.server.workers:
            time.sleep(self.server.seconds)
        self.server.places.release()
        self.server.stalled.wait()
        self.reply(self.server.status)

    def reply(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def serving(server: Server) -> Iterator[str]:
    """The URL of a server that runs meanwhile."""
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/invocations"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "dog.jpg"
    path.write_bytes(JPEG)
    return path


@given(
    threshold=st.floats(0.01, 1000),
    first=st.floats(0.1, 1000),
    lowest=st.floats(0.05, 5),
    resolution=st.floats(0.01, 1),
)
def test_the_bracket_holds_the_threshold(threshold, first, lowest, resolution):
    tried = []
    held, failed = bracket(lambda rate: tried.append(rate) or rate <= threshold, first, lowest, resolution)
    if held is None:
        assert failed == lowest == min(tried) > threshold
    else:
        assert lowest <= held <= threshold < failed <= held * (1 + resolution)


@pytest.mark.parametrize(("steps", "found"), [(0, (None, None)), (2, (2.0, None)), (4, (4.0, 8.0)), (5, (6.0, 8.0))])
def test_the_bracket_so_far_where_the_budget_ends(steps, found):
    tried = []

    def holds(rate: float) -> bool:
        tried.append(rate)
        if len(tried) > steps:
            raise OutOfBudget
        return rate <= 7

    assert bracket(holds, 1.0, 0.5, 0.01) == found


def test_time_runs_from_when_a_request_was_due(picture):
    """A server that stalls keeps all that come meanwhile waiting, not only the one that met the stall."""
    server = Server()
    with serving(server) as url:
        threading.Timer(0.5, server.stalled.clear).start()
        threading.Timer(1.5, server.stalled.set).start()
        step = asyncio.run(load.offer(invocation.read(url, picture), 100, 2, 0, 10))
    waited = sum(latency > 0.1 for latency in step.latencies)
    assert step.outcomes["200"] == len(step.latencies) == sum(step.outcomes.values())
    # 90 or so of 200 came more than a tenth of a second before the stall's end.
    assert 45 < waited < 150 and step.quantile(0.99) > 0.8


def test_poisson_arrivals_with_the_warm_up_left_out(picture):
    with serving(Server()) as url:
        step = asyncio.run(load.offer(invocation.read(url, picture), 200, 1, 0.5, 10, seed=1))
    assert sum(step.outcomes.values()) == pytest.approx(300, abs=70)
    assert len(step.latencies) == pytest.approx(200, abs=60)


def test_refusals_and_timeouts_are_slower_than_any_answer(picture):
    with serving(Server(seconds=0.2, queue=1)) as url:
        refused = asyncio.run(load.offer(invocation.read(url, picture), 50, 1, 0, 10))
    assert refused.outcomes["503"] > refused.outcomes["200"] > 0 and refused.quantile(0.99) == float("inf")
    with serving(Server(seconds=0.3)) as url:
        slow = asyncio.run(load.offer(invocation.read(url, picture), 20, 0.5, 0, 0.1))
    assert set(slow.outcomes) == {"timeout"}


def test_a_server_that_hangs_up_is_counted(picture, monkeypatch):
    monkeypatch.setattr(Handler, "do_POST", lambda handler: handler.connection.shutdown(socket.SHUT_RDWR))
    with serving(Server()) as url:
        step = asyncio.run(load.offer(invocation.read(url, picture), 20, 0.5, 0, 1))
    assert set(step.outcomes) == {"reset"}


def test_a_load_that_is_late_says_so(picture, monkeypatch):
    encode = Invocation.encode
    monkeypatch.setattr(Invocation, "encode", lambda self: time.sleep(0.05) or encode(self))
    lines = []
    with serving(Server()) as url:
        # Twice as many as it can send: half a second of a second's requests is sent after it, and counts as waiting.
        late = asyncio.run(load.offer(invocation.read(url, picture), 40, 1, 0, 10))
        assert late.late() > 0.4 and late.quantile(0.99) >= late.late() - 0.1
        limits = Limits(step_seconds=1, resolution=1)
        found = highest_rate(invocation.read(url, picture), 0.2, 8, limits, lines.append)
    assert found.held and found.limited_by_load and "ms late" in lines[-1]
    assert "measure from a machine that is less busy" in said(found)


FEW = ["--step-seconds", "0.5", "--most-seconds", "10", "--resolution", "0.5", "--slo-p99-ms", "200"]


def arguments(url: str, picture, out, *more: str) -> list[str]:
    return ["measure", "--url", url, "--picture", str(picture), "--out", str(out), *FEW, *more]


def test_a_server_of_known_speed(picture, tmp_path, capsys):
    out = tmp_path / "profile.json"
    with serving(Server(seconds=0.04, workers=2)) as url:
        flags = ["--workers", "2", "--queue-length", "9", "--instance-type", "ml.c7i.xlarge"]
        status = main(arguments(url, picture, out, *flags))
    printed = capsys.readouterr().out
    assert status == 0 and " does not hold" in printed and ": holds" in printed
    measured = profile.read(out, "ml.c7i.xlarge")
    assert len(measured.service_seconds) == 101
    assert (measured.workers, measured.queue_length, measured.slo_p99_ms) == (2, 9, 200)
    assert measured.service_seconds[0] >= 0.04
    # Fifty a second is what two workers can; a short step does not see the last of it.
    assert 10 < measured.max_rps < 75
    assert "127.0.0.1" in measured.source and measured.machine


def test_without_a_picture_or_a_name_and_with_a_page(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with serving(server := Server(seconds=0.03)) as url:
        assert main(["measure", "--url", url, *FEW, "--html", "page.html"]) == 0
    assert profile.read(tmp_path / "profile.json", "ml.m5.xlarge").max_rps
    assert {headers["Content-Type"] for headers in server.headers} == {"image/jpeg"}
    assert int(server.headers[0]["Content-Length"]) > 20_000
    assert {file.name for file in tmp_path.iterdir()} == {"profile.json", "page.html", "page-rates.png"}
    page = (tmp_path / "page.html").read_text()
    rates = re.findall(
        r"^ *([\d.]+)/s for .* p99 ([\d,]+ ms|none): (holds|does not hold)", capsys.readouterr().out, re.M
    )
    rows = re.findall(r"<tr><th>([\d.]+)</th>.*?<td>([\d,]+ ms|fails)</td><td>(holds|does not hold)</td>", page)
    assert len(rates) > 1 and sorted(rates) == sorted(
        (rate, p99.replace("fails", "none"), said) for rate, p99, said in rows
    )


def said(found: Bracket, most: float = 100.0, simulated: float = 0.6, slower: float = 1.0) -> str:
    return "\n".join(summary(found, 0.5, most, lambda rate: simulated, slower))


def test_what_the_summary_says():
    assert "target of 600 " in said(Bracket(20.0, 21.0))
    assert "p99 is 600 ms at 20.00/s and 600 ms at 21.00/s" in said(Bracket(20.0, 21.0))
    assert "raise the limits" in said(Bracket(20.0, None))
    assert "see --workers" in said(Bracket(20.0, 21.0), most=19.0) and "--workers" not in said(Bracket(20.0, 21.0))
    assert "too good" in said(Bracket(20.0, 21.0), simulated=0.4) and "too good" not in said(Bracket(20.0, 21.0))
    assert "less busy" in said(Bracket(20.0, 21.0, limited_by_load=True))
    assert "1.30 times as long, with which 21.00/s fail" in said(Bracket(20.0, 21.0), slower=1.3)


def test_the_simulation_of_a_measured_server_is_a_queue():
    # M/D/1 at half load: the 99th percentile is some 3.4 service times more than none.
    half = simulated_p99(np.array([0.1, 0.1]), workers=1, queue_length=10**6, rate=5.0)
    assert 0.3 < half < 0.5
    assert simulated_p99(np.array([0.1, 0.1]), workers=1, queue_length=3, rate=12.0) == float("inf")
    assert simulated_p99(np.array([0.1, 0.1]), workers=8, queue_length=3, rate=5.0) == pytest.approx(0.1)


@pytest.mark.parametrize("times", [1.0, 1.5, 2.5])
def test_a_profile_is_as_slow_as_the_server_under_load(times):
    """A server whose requests take longer when all workers are busy fails at a rate that tells by how much."""
    alone = np.random.default_rng(0).gamma(4.0, 0.01, 500)
    rates = np.arange(5.0, 80.0, 0.5)
    failed = next(rate for rate in rates if simulated_p99(alone * times, 2, 64, rate) > 0.5)
    assert slowdown(alone, 2, 64, 0.5, Bracket(failed - 0.5, failed)) == pytest.approx(times, rel=0.03)


def test_what_does_not_tell_how_slow_a_server_is():
    alone = np.array([0.01, 0.01])
    for found in (Bracket(None, 9.0), Bracket(9.0, None), Bracket(8.0, 9.0, limited_by_load=True)):
        assert slowdown(alone, 2, 64, 0.5, found) == 1
    assert slowdown(alone, 2, 64, 0.5, Bracket(8.0, 9.0)) > 10


def test_nothing_meets_the_slo(picture, tmp_path, capsys):
    with serving(Server(seconds=0.03)) as url:
        status = main(arguments(url, picture, tmp_path / "out.json", "--slo-p99-ms", "10", "--lowest-rate", "8"))
    assert status == 3 and capsys.readouterr().err == "nothing keeps p99 within 10 ms: 8.00/s do not\n"
    assert profile.read(tmp_path / "out.json", "ml.m5.xlarge").max_rps is None


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://127.0.0.1/invocations", "give http(s)://"),
        ("127.0.0.1:8080/invocations", "give http(s)://"),
        ("http://:8080/invocations", "give http(s)://"),
        ("http://127.0.0.1:99999/invocations", "give http(s)://"),
        ("http://127.0.0.1:1/invocations", "cannot be reached"),
    ],
)
def test_a_url_that_leads_nowhere(url, message, picture, tmp_path, capsys):
    assert main(arguments(url, picture, tmp_path / "out.json")) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"--url {url}: ") and message in error and error.count("\n") == 1


def test_pictures_that_are_none(tmp_path, capsys):
    text = tmp_path / "dog.jpg"
    text.write_text("woof")
    for path, message in [(text, "neither a JPEG nor a PNG"), (tmp_path / "none.jpg", "cannot be read")]:
        assert main(arguments("http://127.0.0.1:1/invocations", path, tmp_path / "out.json")) == 2
        assert message in capsys.readouterr().err


def test_a_first_answer_that_is_not_200(picture, tmp_path, capsys):
    with serving(Server(status=415)) as url:
        assert main(arguments(url, picture, tmp_path / "out.json")) == 2
    assert "answered 415 []: only 200 can be measured" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


def test_a_profile_that_cannot_be_written_is_said_before_the_work(picture, tmp_path, capsys):
    out = tmp_path / "none" / "out.json"
    assert main(arguments("http://127.0.0.1:1/invocations", picture, out)) == 2
    assert f"--out {out}: no such folder" in capsys.readouterr().err


def test_no_step_within_the_budget(picture, tmp_path, capsys):
    with serving(Server()) as url:
        assert main(arguments(url, picture, tmp_path / "out.json", "--most-requests", "1")) == 2
    assert "raise --most-seconds or --most-requests" in capsys.readouterr().err


def test_an_endpoint_is_called_with_a_signature(picture, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    url = "https://runtime.sagemaker.eu-west-1.amazonaws.com/endpoints/dogs/invocations"
    sent = invocation.read(url, picture)
    assert (sent.host, sent.port, sent.tls) == ("runtime.sagemaker.eu-west-1.amazonaws.com", 443, True)
    head, _, body = sent.encode().partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    assert lines[0] == "POST /endpoints/dogs/invocations HTTP/1.1" and body == JPEG
    assert_signed(headers, "/endpoints/dogs/invocations", "eu-west-1", b"secret")


def assert_signed(headers: dict[str, str], path: str, region: str, secret: bytes) -> None:
    """Compute the signature again, from AWS's description of it."""
    fields = dict(part.strip().split("=", 1) for part in headers["authorization"].partition(" ")[2].split(","))
    day = headers["x-amz-date"][:8]
    scope = f"{day}/{region}/sagemaker/aws4_request"
    assert fields["Credential"] == f"AKIDEXAMPLE/{scope}"
    names = fields["SignedHeaders"].split(";")
    assert {"host", "x-amz-date"} <= set(names)
    body_digest = hashlib.sha256(JPEG).hexdigest()
    canonical = "\n".join(
        ["POST", path, "", *(f"{name}:{headers[name]}" for name in names), "", ";".join(names), body_digest]
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = b"AWS4" + secret
    for part in (day, region, "sagemaker", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    text = "\n".join(["AWS4-HMAC-SHA256", headers["x-amz-date"], scope, digest])
    assert fields["Signature"] == hmac.digest(key, text.encode(), "sha256").hex()


def test_a_local_accounts_endpoint_is_signed_for_too_and_a_plain_server_is_not(picture, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    with serving(server := Server()) as url:
        for path in ("/endpoints/dogs/invocations", "/invocations"):
            asyncio.run(
                load.one_after_another(invocation.read(url.replace("/invocations", path), picture), 0, 0, 1, 1, 5)
            )
    signed, plain = server.headers
    assert "/us-west-2/sagemaker/" in signed["Authorization"] and "Authorization" not in plain


def test_no_credentials(picture, monkeypatch, tmp_path, capsys):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert main(arguments("http://127.0.0.1:1/endpoints/dogs/invocations", picture, tmp_path / "out.json")) == 2
    assert "no AWS credentials to sign with" in capsys.readouterr().err
