"""The bench of serving: every promise has a row and a verdict, from made-up loads and, slowly, from real servers."""

from __future__ import annotations

import math

import pytest

from bench.rounds import Seconds
from bench.serving import servers, subject
from bench.serving.load import Load
from bench.serving.servers import Server, ServerError
from bench.serving.subject import PARTS, Scale, Serving, Visit

TINY = Scale(
    rounds=1,
    seconds=0.6,
    warm_up=0.3,
    pictures=2,
    classes=2,
    backbone="resnet18",
    image_size=32,
    size=(60, 40),
    large_size=(160, 120),
    many=12,
    queue=2,
)


def visit(per_second: float, p50: float = 40, bare: float = 36, statuses: dict | None = None, lost: int = 0) -> Visit:
    """A server as fast in every load."""
    load = Load(4, per_second, p50, 2 * p50, statuses or {"200": 99, "503": 5}, lost, 0.05)
    loads = dict.fromkeys([subject.FOUR, subject.ONE, subject.LARGE, subject.MANY], load)
    hundred = {what: Seconds(100 / per_second, 1) for what in loads}
    return Visit(Seconds(10 / per_second, 1), loads, hundred, bare, worker_bytes=300_000_000, all_bytes=700_000_000)


@pytest.fixture
def serving(tmp_path) -> Serving:
    """Everything measured: ours at 50 pictures a second, its int8 at 200, the others at 20."""
    serving = Serving(TINY, tmp_path, list(PARTS))
    serving.servers = dict.fromkeys(serving.needed, Server(tmp_path))
    speeds = dict.fromkeys(serving.needed, 20) | {subject.OURS: 50, subject.LATENCY: 50, subject.INT8: 200}
    serving.visits = {name: [visit(speed)] for name, speed in speeds.items()}
    serving.visits |= {"fp32": [200], "int8": [800], "onnxruntime": [0.03], "openvino": [0.029]}
    return serving


@pytest.mark.parametrize("part", PARTS)
def test_what_was_promised_is_judged(serving, part):
    rows = getattr(serving, part)()
    assert all(row.verdict in ("held", "fell short") for row in rows if row.hold)
    assert any(row.hold for row in rows) == (part != "front")  # of which nothing is promised


def test_the_ratios_are_of_the_sides_named(serving):
    fp32, share, int8, *_ = serving.throughput()
    assert fp32.ratio.startswith("2.50 ") and int8.ratio.startswith("10.00 ")
    assert fp32.ours.startswith("50.0/s") and fp32.reference.startswith("20.0/s")
    # A tiny network's GFLOP a picture, times 50, of the 200 GFLOP/s of the machine.
    assert share.ours == f"{50 * serving.gflop / 200:.0%}"
    (start,) = serving.start()
    assert start.ratio.startswith("2.50 ")
    p50, _ = serving.latency()
    assert p50.ratio.startswith("1.111 ") and p50.verdict == "held"


@pytest.mark.parametrize(
    ("statuses", "lost", "verdict"),
    [
        ({"200": 90, "503": 10}, 0, "held"),
        ({"200": 90}, 0, "fell short"),  # a queue without an end
        ({"200": 90, "503": 10}, 1, "fell short"),
        ({"200": 90, "500": 1, "503": 10}, 0, "fell short"),
    ],
)
def test_too_many_clients_are_refused_and_none_is_lost(serving, statuses, lost, verdict):
    serving.visits[subject.OURS] = [visit(50, statuses=statuses, lost=lost)]
    assert serving.overload()[-1].verdict == verdict


def test_a_p99_beyond_a_full_queue_fell_short(serving):
    assert serving.overload()[1].verdict == "held"  # 80 ms, of (2 + cores) / 50 s
    serving.visits[subject.OURS] = [visit(50, p50=5000)]
    assert serving.overload()[1].verdict == "fell short"


def test_what_is_not_installed_is_said(serving):
    for name in (subject.OPENVINO, subject.BEHIND_TORCHSERVE, subject.BEHIND_MMS):
        del serving.servers[name]
    rows = serving.rivals() + serving.front()
    assert len(rows) == 3 and all("not installed" in row.measured for row in rows)


def test_a_server_that_ends_is_an_error_with_its_last_words(tmp_path):
    picture, script = tmp_path / "a.jpg", tmp_path / "ends.py"
    picture.write_bytes(b"")
    script.write_text("raise SystemExit('no model here')")
    server = Server(tmp_path, servers.ROOT / ".venv" / "bin" / "python", script)
    with pytest.raises(ServerError, match="no model here"), servers.running(server, picture, tmp_path / "state"):
        pass


@pytest.mark.slow
@pytest.mark.skipif(not servers.PEERS.exists(), reason="the peers' environment .venv-bench is not installed")
def test_the_whole_table_from_real_servers(tmp_path):
    rows = subject.measured(TINY, tmp_path, list(PARTS))
    assert sum(row.verdict != "" for row in rows) >= 11
    assert not any(math.isnan(float(row.ratio.split()[0])) for row in rows if row.ratio)
    assert any(row.ours.endswith(", 0") and row.hold == "some refused, none lost" for row in rows)
