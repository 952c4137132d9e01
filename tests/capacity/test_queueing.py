"""The simulation against queueing theory: Erlang B, Erlang C, and the waiting time of M/M/c."""

import math
from dataclasses import replace

import numpy as np
import pytest

from capacity.endpoint import Variant
from capacity.execution_environments import Function
from capacity.shapes import poisson
from capacity.simulation import REFUSED, System, simulate
from capacity.target_tracking import Policy

UNBOUNDED = 10**6
OPEN = System(
    Function(concurrency=UNBOUNDED, provisioned=UNBOUNDED, overhead=0.0, cold_start=0.0, timeout=math.inf),
    Variant(workers=1, queue_length=UNBOUNDED, update_seconds=60),
    Policy(target=1e12, minimum=1, maximum=1, scale_in_cooldown=0, scale_out_cooldown=0),
)


def erlang_b(servers: int, load: float) -> float:
    """The share of arrivals that find all servers busy and go, by the recursion over the servers."""
    blocked = 1.0
    for busy in range(1, servers + 1):
        blocked = load * blocked / (busy + load * blocked)
    return blocked


def erlang_c(servers: int, load: float) -> float:
    """The share of arrivals that wait."""
    blocked = erlang_b(servers, load)
    return blocked / (1 - load / servers * (1 - blocked))


def lambda_alone(
    reserved: int, provisioned: int, rate: float, seconds: float, requests: int, exponential: bool = False
):
    """Shares of invocations that are throttled, and that spill over the provisioned concurrency."""
    trace = poisson(1, rate, requests / rate)
    count = len(trace.arrivals)
    service = np.random.default_rng(2).exponential(seconds, count) if exponential else np.full(count, seconds)
    function = replace(OPEN.function, concurrency=reserved, provisioned=provisioned)
    outcome = simulate(
        trace, service, replace(OPEN, function=function, variant=replace(OPEN.variant, workers=reserved))
    )
    return (outcome.status == REFUSED).mean(), outcome.spilled / count


@pytest.mark.parametrize(("rate", "spilled", "throttled"), [(5, 0.059, 0.003), (10, 0.174, 0.037), (25, 0.245, 0.285)])
def test_reserved_five_provisioned_three(rate, spilled, throttled):
    """The worked figures at 200 ms, to a tenth of a percentage point or 1 %, whichever is more."""
    measured = lambda_alone(5, 3, rate, 0.2, 300_000)
    assert measured == pytest.approx((throttled, spilled), abs=1e-3, rel=0.01)
    load = rate * 0.2
    assert (throttled, spilled) == pytest.approx((erlang_b(5, load), erlang_b(3, load) - erlang_b(5, load)), abs=1e-3)


def test_what_keeps_throttles_at_one_percent():
    assert lambda_alone(5, 3, 6.8, 0.2, 300_000)[0] == pytest.approx(0.01, abs=1e-3)
    assert lambda_alone(10, 3, 25, 0.2, 300_000)[0] > 0.01 > lambda_alone(11, 3, 25, 0.2, 300_000)[0]


@pytest.mark.parametrize(("reserved", "load", "exponential"), [(1, 1.0, False), (5, 5.0, True), (20, 22.0, True)])
def test_throttles_are_erlang_b_whatever_the_distribution(reserved, load, exponential):
    throttled, _ = lambda_alone(reserved, 0, load, 1.0, 400_000, exponential)
    assert throttled == pytest.approx(erlang_b(reserved, load), rel=0.01)


def waits(workers: int, load: float, requests: int, instances: int = 1) -> np.ndarray:
    """Seconds that each request waits for one of an instance's workers, which take one second on average."""
    rate = load * instances
    trace = poisson(3, rate, requests / rate)
    service = np.random.default_rng(4).exponential(1.0, len(trace.arrivals))
    system = replace(
        OPEN,
        variant=replace(OPEN.variant, workers=workers),
        policy=replace(OPEN.policy, minimum=instances, maximum=instances),
    )
    return simulate(trace, service, system).latency - service


def assert_erlang_c(waited: np.ndarray, workers: int, load: float) -> None:
    delayed = erlang_c(workers, load)
    assert (waited > 1e-9).mean() == pytest.approx(delayed, rel=0.01)
    assert waited.mean() == pytest.approx(delayed / (workers - load), rel=0.01)


@pytest.mark.parametrize(("workers", "load"), [(1, 0.5), (4, 2.4)])
def test_waiting_is_erlang_c(workers, load):
    assert_erlang_c(waits(workers, load, 1_000_000), workers, load)


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "load"), [(1, 0.8), (2, 1.7), (8, 6.4)])
def test_waiting_is_erlang_c_under_load(workers, load):
    assert_erlang_c(waits(workers, load, 8_000_000), workers, load)


@pytest.mark.slow
def test_instances_at_random_are_queues_of_their_own():
    assert_erlang_c(waits(1, 0.5, 1_000_000, instances=3), 1, 0.5)
