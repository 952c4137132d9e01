"""The simulation by intervals against the exact one, at loads that both can run; and at one that only it can."""

import math
from dataclasses import replace

import numpy as np
import pytest

from capacity import profile
from capacity.aggregate import INTERVAL, Aggregate, Demand, demand
from capacity.endpoint import Variant
from capacity.execution_environments import Function
from capacity.shapes import bursty, diurnal, poisson
from capacity.simulation import ANSWERED, REFUSED, System, simulate
from capacity.target_tracking import Policy
from capacity.trace import Trace

ASSUMED = profile.assumed("ml.m5.xlarge")
SLO = 0.5


def system(low=1, high=3, target=600.0, reserved=5, provisioned=3, rule="proportional") -> System:
    return System(
        Function(reserved, provisioned, ASSUMED.lambda_seconds, ASSUMED.cold_start_seconds, timeout=28.0),
        Variant(ASSUMED.workers, ASSUMED.queue_length, update_seconds=213.0),
        Policy(target, low, high, scale_in_cooldown=300, scale_out_cooldown=30, scale_in=rule),
    )


HOURS = 8 * 3600.0
CASES = {
    "the reference configuration": (diurnal(0, 2, HOURS), system(target=30)),
    "bursts": (bursty(0, 3, HOURS), system(rule="one at a time")),
    "one instance at three quarters": (poisson(0, 15, HOURS / 2), system(high=1, reserved=100, provisioned=20)),
    "it scales": (diurnal(0, 12, HOURS), system(high=6, reserved=20, provisioned=8)),
    "it scales too late": (bursty(0, 10, HOURS), system(high=6, reserved=20)),
    "one instance too few": (poisson(0, 30, 3600.0), system(high=1, reserved=8)),
}


@pytest.mark.parametrize("name", CASES)
def test_it_agrees_with_the_exact_simulation(name):
    trace, stack = CASES[name]
    services = ASSUMED.draw(np.random.default_rng(1), len(trace.arrivals))
    exact = simulate(trace, services, stack)
    count = len(trace.arrivals)
    let_in = exact.status != REFUSED
    latency = np.where(exact.status == ANSWERED, exact.latency, math.inf)[let_in]
    found = Aggregate(demand(trace), stack, ASSUMED).estimate(stack.policy, stack.function.provisioned, SLO)
    assert found.requests == count
    assert found.refused / count == pytest.approx((~let_in).mean(), rel=0.2, abs=0.001)
    assert found.spilled / count == pytest.approx(exact.spilled / count, rel=0.1, abs=0.005)
    assert found.cold_starts == pytest.approx(exact.cold_starts, rel=0.2, abs=2e-4 * count)
    assert found.instance_seconds == pytest.approx(exact.instance_seconds, rel=0.04)
    assert found.p50 == pytest.approx(np.median(latency), rel=0.1)
    assert found.p99 == pytest.approx(np.percentile(latency, 99), rel=0.2)
    assert found.late / let_in.sum() == pytest.approx((latency > SLO).mean(), rel=0.2, abs=0.03)
    ran = found.provisioned_seconds + found.on_demand_seconds
    assert ran == pytest.approx(exact.provisioned_seconds + exact.on_demand_seconds, rel=0.1)


def test_without_noise_it_scales_as_the_exact_one_does():
    """The same control loop: the same decisions from the same datapoints."""
    minutes = np.where((np.arange(480) // 60) % 2, 1500, 120)
    arrivals = np.concatenate([60 * m + (np.arange(n) + 0.5) * 60 / n for m, n in enumerate(minutes)])
    trace = Trace("square", arrivals, 480 * 60.0)
    for rule in ("proportional", "one at a time"):
        stack = system(high=8, target=300, reserved=500, provisioned=0, rule=rule)
        exact = simulate(trace, np.full(len(arrivals), 0.05), stack)
        quick = replace(ASSUMED, service_seconds=np.full(2, 0.05))
        found = Aggregate(demand(trace), stack, quick).estimate(stack.policy, 0, SLO)
        assert len(exact.decisions) > 8
        assert [(d.time, d.before, d.after) for d in found.decisions] == [
            (d.time, d.before, d.after) for d in exact.decisions
        ]
        assert found.capacity == exact.capacity
        assert found.instance_seconds == pytest.approx(exact.instance_seconds)


def test_a_day_of_ten_thousand_requests_a_second():
    moments = (np.arange(round(86_400 / INTERVAL)) + 0.5) * INTERVAL
    rates = 10_000 * (1 - 0.8 * np.cos(2 * math.pi * moments / 86_400))
    requests = Demand("large", np.random.default_rng(0).poisson(rates * INTERVAL))
    stack = system(low=100, high=2000, target=700, reserved=6000, provisioned=1000)
    found = Aggregate(requests, stack, ASSUMED).estimate(stack.policy, 1000, SLO)
    assert found.requests == requests.counts.sum() > 8.6e8
    # The most instances answer the highest rate near the target, and all seconds are somebody's.
    assert max(instances for _, instances in found.capacity) == pytest.approx(18_000 * 60 / 700, rel=0.02)
    busy = found.requests * (ASSUMED.lambda_seconds + np.trapezoid(ASSUMED.service_seconds, dx=0.1))
    assert busy < found.provisioned_seconds + found.on_demand_seconds < 1.3 * busy
    assert found.refused < 1e-3 * found.requests
