"""The simulation: a trace through Lambda and endpoint under target tracking, event by event."""

from __future__ import annotations

import heapq
from array import array
from dataclasses import dataclass

import numpy as np

from capacity.endpoint import Endpoint, Variant
from capacity.execution_environments import COLD, PROVISIONED, THROTTLED, ExecutionEnvironments, Function
from capacity.target_tracking import Decision, Policy, TargetTracking
from capacity.trace import MINUTE, Trace

ANSWERED, REFUSED, FAILED = range(3)  # what became of a request: an answer; 429; a timeout or 503

# A minute's datapoint is visible about a minute after it ends; users observe one to three.
METRIC_DELAY_SECONDS = 60.0

# Events are (time, code): of request i, 4 i plus one of these; below zero, those of the control loop.
REACHES_FROM_PROVISIONED, REACHES_FROM_ON_DEMAND, LEAVES_PROVISIONED, LEAVES_ON_DEMAND = range(4)
DATAPOINT, IN_SERVICE = -2, -1


@dataclass(frozen=True)
class System:
    """What is simulated."""

    function: Function
    variant: Variant
    policy: Policy


@dataclass(frozen=True)
class Outcome:
    """What became of a trace.

    status: ANSWERED, REFUSED or FAILED, uint8, shape (requests,); latency: seconds from the request to its answer (0
    where there is none), float64, shape (requests,). spilled: invocations beyond the provisioned concurrency, the cold
    starts among them. capacity: (time, instances in service), instance_seconds: billed. The seconds that the function
    ran are billed too, apart for provisioned and on-demand environments.
    """

    duration: float
    status: np.ndarray
    latency: np.ndarray
    cold_starts: int
    spilled: int
    decisions: list[Decision]
    capacity: list[tuple[float, int]]
    instance_seconds: float
    provisioned_seconds: float
    on_demand_seconds: float


def simulate(trace: Trace, service_seconds: np.ndarray, system: System, seed: int = 0) -> Outcome:
    """Let a trace through a system, from its fewest instances on.

    service_seconds: what each request takes a worker, float64, shape (requests,). The same seed gives the same outcome.
    """
    function = system.function
    environments = ExecutionEnvironments(function)
    endpoint = Endpoint(system.variant, system.policy.minimum, seed)
    scaling = TargetTracking(system.policy)

    # Arrays of the standard library: single elements of NumPy's are three times as slow to get.
    arrivals, services = array("d", trace.arrivals.tobytes()), array("d", service_seconds.tobytes())
    count = len(arrivals)
    status, latency = bytearray(count), array("d", bytes(8 * count))
    invocations = array("d", bytes(8 * (int(trace.duration // MINUTE) + 1)))  # per instance, by minute
    cold_starts = spilled = 0
    run_seconds = [0.0, 0.0]  # provisioned, on demand

    active = billed = system.policy.minimum
    capacity, decisions = [(0.0, active)], []
    instance_seconds, billed_since = 0.0, 0.0

    heap: list[tuple[float, int]] = [(MINUTE + METRIC_DELAY_SECONDS, DATAPOINT)]
    push, pop = heapq.heappush, heapq.heappop
    last_minute = len(invocations) - 1
    following = 0
    while following < count or heap:
        if following < count and (not heap or arrivals[following] < heap[0][0]):
            now = arrivals[following]
            kind = environments.admit(now)
            if kind == THROTTLED:
                status[following] = REFUSED
            else:
                begins = now + function.overhead
                if kind == COLD:
                    cold_starts += 1
                    begins += function.cold_start
                spilled += kind != PROVISIONED
                reaches = REACHES_FROM_PROVISIONED if kind == PROVISIONED else REACHES_FROM_ON_DEMAND
                push(heap, (begins, 4 * following + reaches))
            following += 1
            continue
        now, code = pop(heap)
        if code >= 0:
            request, kind = code >> 2, code & 3
            if kind >= LEAVES_PROVISIONED:
                environments.release(now, kind == LEAVES_PROVISIONED)
                continue
            minute = int(now // MINUTE)
            invocations[minute if minute < last_minute else last_minute] += 1 / active
            arrived = arrivals[request]
            ends = endpoint.accept(now, services[request])
            if ends is None:
                status[request], ends = FAILED, now
            elif ends - arrived > function.timeout:
                # The function is stopped; the endpoint works on, for nobody.
                status[request], ends = FAILED, max(now, arrived + function.timeout)
            else:
                latency[request] = ends - arrived
            run_seconds[kind] += ends - arrived
            push(heap, (ends, code + LEAVES_PROVISIONED))
        elif code == DATAPOINT:
            minute = round((now - METRIC_DELAY_SECONDS) / MINUTE) - 1
            decision = scaling.evaluate(now, invocations[minute])
            if decision:
                decisions.append(decision)
                # An instance is billed from when it is asked for, and until the endpoint is done with it.
                if decision.after > active:
                    instance_seconds += billed * (now - billed_since)
                    billed, billed_since = decision.after, now
                else:
                    active = decision.after
                    endpoint.resize(active)
                    capacity.append((now, active))
                push(heap, (now + system.variant.update_seconds, IN_SERVICE))
            if now + MINUTE <= trace.duration:
                push(heap, (now + MINUTE, DATAPOINT))
        else:
            scaling.finished(now)
            if scaling.capacity > active:
                active = scaling.capacity
                endpoint.resize(active)
                capacity.append((now, active))
            until = min(now, trace.duration)
            instance_seconds += billed * (until - billed_since)
            billed, billed_since = active, until
    instance_seconds += billed * (trace.duration - billed_since)
    return Outcome(
        duration=trace.duration,
        status=np.frombuffer(status, dtype=np.uint8),
        latency=np.frombuffer(latency),
        cold_starts=cold_starts,
        spilled=spilled,
        decisions=decisions,
        capacity=capacity,
        instance_seconds=instance_seconds,
        provisioned_seconds=run_seconds[0],
        on_demand_seconds=run_seconds[1],
    )
