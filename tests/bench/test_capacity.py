"""The bench of capacity at a scale of seconds: the peers do the same work, and every promise has a verdict."""

from __future__ import annotations

import numpy as np
import pytest

from bench import capacity, capacity_queue, rounds
from bench.capacity import PARTS, PEERS, Capacity, Scale
from bench.rounds import Seconds

TINY = Scale(rounds=1, requests=3_000, minutes=30, few=500, many=2_000)


@pytest.fixture
def bench(tmp_path, monkeypatch) -> Capacity:
    """Saves the start of a process for each work."""
    monkeypatch.setattr(rounds, "alone", lambda work: work())
    return Capacity(TINY, tmp_path)


@pytest.mark.parametrize("work", [work for work, _ in PEERS.values()])
def test_a_peer_answers_the_same_requests_after_the_same_time(work):
    run = work(20_000)
    assert run.latency == pytest.approx(capacity_queue.ours(20_000).latency, abs=1e-6)
    assert 0 < (run.latency == 0).mean() < 0.02  # some are refused: the limit is at work


@pytest.mark.parametrize("part", PARTS)
def test_what_was_promised_is_judged(bench, part):
    rows = getattr(bench, part)()
    assert all(row.verdict in ("held", "fell short") for row in rows if row.hold)
    assert sum(row.hold != "" for row in rows) == (len(PEERS) if part == "peers" else 1)


def test_a_peer_that_answers_otherwise_is_no_comparison(bench, monkeypatch):
    def other(requests: int) -> capacity_queue.Run:
        return capacity_queue.Run(Seconds(1, 1), capacity_queue.ours(requests).latency + 0.01)

    monkeypatch.setitem(capacity.PEERS, "Ciw", (other, (6, 8)))
    with pytest.raises(RuntimeError, match="Ciw answers other"):
        bench.peers()


def test_the_cost_is_of_one_request(monkeypatch):
    monkeypatch.setattr(capacity.Stopwatch, "read", lambda watch: Seconds(6.0, 3.0))
    requests = len(capacity.poisson(1, capacity.PER_SECOND, 1_000 / capacity.PER_SECOND).arrivals)
    found = capacity.cost(1_000, repeats=2)
    assert np.allclose((found.wall, found.cpu), (3.0 / requests, 1.5 / requests))
