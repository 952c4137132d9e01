"""The simulation: a trace through Lambda and endpoint under target tracking, event by event."""

from __future__ import annotations

import heapq
import math
from array import array
from dataclasses import dataclass, field, replace

import numpy as np

from capacity.endpoint import Endpoint, Variant
from capacity.event_queue import EventQueue
from capacity.execution_environments import COLD, PROVISIONED, THROTTLED, ExecutionEnvironments, Function
from capacity.schedule import Change, ScheduledAction, course
from capacity.target_tracking import Decision, Policy, TargetTracking
from capacity.trace import MINUTE, Trace

ANSWERED, REFUSED, FAILED = range(3)  # what became of a request: an answer; 429; a timeout or 503

# A minute's datapoint is visible about a minute after it ends; users observe one to three.
METRIC_DELAY_SECONDS = 60.0

# Events are (time, code): of request i, 4 i plus one of these; below zero, those of the control loop.
REACHES_FROM_PROVISIONED, REACHES_FROM_ON_DEMAND, TRIES = range(3)
SCHEDULED, END, DATAPOINT, IN_SERVICE = -4, -3, -2, -1


@dataclass(frozen=True)
class System:
    """What is simulated. The scheduled actions are in the order of their names."""

    function: Function
    variant: Variant
    policy: Policy
    scheduled: tuple[ScheduledAction, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What became of a trace.

    status: ANSWERED, REFUSED or FAILED, uint8, shape (requests,); latency: seconds from the request to its answer (0
    where there is none), float64, shape (requests,). spilled: invocations beyond the provisioned concurrency, the cold
    starts among them. capacity: (time, instances in service); billed: (time, instances paid for), instance_seconds in
    all. The seconds that the function ran are billed too, apart for provisioned and on-demand environments. bounds:
    (time, fewest instances, most); changes: the scheduled actions that made them so while the trace lasted.
    """

    duration: float
    status: np.ndarray
    latency: np.ndarray
    cold_starts: int
    spilled: int
    decisions: list[Decision]
    capacity: list[tuple[float, int]]
    billed: list[tuple[float, int]]
    instance_seconds: float
    provisioned_seconds: float
    on_demand_seconds: float
    asynchronous: bool = False
    retried: int = 0
    run_again: int = 0
    bounds: list[tuple[float, int, int]] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)


def simulate(trace: Trace, service_seconds: np.ndarray, system: System, seed: int = 0) -> Outcome:
    """Let a trace through a system, from its fewest instances on: those of the scheduled action in force, if one is.

    service_seconds: what each request takes a worker, float64, shape (requests,). The same seed gives the same outcome.
    """
    function = system.function
    environments = ExecutionEnvironments(function)
    in_force, changes = course(system.scheduled, trace.begins, trace.duration)
    policy = system.policy
    if in_force:
        policy = replace(policy, minimum=in_force.action.minimum, maximum=in_force.action.maximum)
    endpoint = Endpoint(system.variant, policy.minimum, seed)
    scaling = TargetTracking(policy)

    # Arrays of the standard library: single elements of NumPy's are three times as slow to get.
    arrivals, services = array("d", trace.arrivals.tobytes()), array("d", service_seconds.tobytes())
    count = len(arrivals)
    status, latency = bytearray(count), array("d", bytes(8 * count))
    invocations = array("d", bytes(8 * (int(trace.duration // MINUTE) + 1)))  # per instance, by minute
    queue = EventQueue(function.events) if function.events else None
    begun = array("d", arrivals) if queue else arrivals  # the run under way, of each request
    cold_starts = spilled = retried = run_again = 0
    run_seconds = [0.0, 0.0]  # provisioned, on demand

    active = billed = policy.minimum
    capacity, decisions = [(0.0, active)], []
    instance_seconds, billed_since = 0.0, 0.0
    billing = [(0.0, billed)]

    heap: list[tuple[float, int]] = [(MINUTE + METRIC_DELAY_SECONDS, DATAPOINT), (math.inf, END)]
    heap += [(change.time, SCHEDULED) for change in changes]
    heapq.heapify(heap)
    coming = iter(changes)
    arrivals.append(math.inf)  # none comes after the last
    push, pop = heapq.heappush, heapq.heappop
    minute, minute_ends, last_minute = 0, MINUTE, len(invocations) - 1
    following = 0
    while True:
        if arrivals[following] < heap[0][0]:
            now, request, kind = arrivals[following], following, TRIES
            following += 1
        else:
            now, code = pop(heap)
            if code == END:
                break
            request, kind = code >> 2, code & 3
            if code < 0:
                if code == DATAPOINT:
                    decision = scaling.evaluate(now, invocations[round((now - METRIC_DELAY_SECONDS) / MINUTE) - 1])
                    if now + MINUTE <= trace.duration:
                        push(heap, (now + MINUTE, DATAPOINT))
                elif code == SCHEDULED:
                    decision = scaling.run(now, next(coming).action)
                else:
                    if scaling.capacity > active:
                        active = scaling.capacity
                        endpoint.resize(active)
                        capacity.append((now, active))
                    until = min(now, trace.duration)
                    instance_seconds += billed * (until - billed_since)
                    billed, billed_since = active, until
                    billing.append((until, billed))
                    if now >= trace.duration:
                        continue
                    decision = scaling.finished(now)
                if decision:
                    decisions.append(decision)
                    # An instance is billed from when it is asked for, and until the endpoint is done with it.
                    if decision.after > active:
                        instance_seconds += billed * (now - billed_since)
                        billed, billed_since = decision.after, now
                        billing.append((now, billed))
                    else:
                        active = decision.after
                        endpoint.resize(active)
                        capacity.append((now, active))
                    push(heap, (now + system.variant.update_seconds, IN_SERVICE))
                continue
        if kind == TRIES:
            environment = environments.admit(now)
            if environment == THROTTLED:
                again = queue.after_throttle(request, now, arrivals[request]) if queue else None
                if again is None:
                    status[request] = FAILED if queue and queue.ran(request) else REFUSED
                else:
                    retried += 1
                    push(heap, (again, 4 * request + TRIES))
                continue
            if queue:
                begun[request] = now
                run_again += queue.ran(request)
            now += function.overhead
            kind = REACHES_FROM_PROVISIONED
            if environment != PROVISIONED:
                kind = REACHES_FROM_ON_DEMAND
                spilled += 1
            if environment == COLD:
                cold_starts += 1
                push(heap, (now + function.cold_start, 4 * request + kind))
                continue
            if heap[0][0] <= now:
                push(heap, (now, 4 * request + kind))
                continue
            # Nothing comes to the endpoint in between, for what is tried later reaches it later.
        # Requests reach the endpoint one after another: a division for each minute, not for each request.
        if now >= minute_ends:
            minute = min(int(now // MINUTE), last_minute)
            minute_ends = (minute + 1) * MINUTE if minute < last_minute else math.inf
        invocations[minute] += 1 / active
        began = begun[request]
        ends = endpoint.accept(now, services[request])
        if ends is not None and ends - began <= function.timeout:
            latency[request] = ends - arrivals[request]
        else:
            # At a timeout the function is stopped; the endpoint works on, for nobody.
            ends = now if ends is None else max(now, began + function.timeout)
            again = queue.after_error(request, ends, arrivals[request]) if queue else None
            if again is None:
                status[request] = FAILED
            else:
                push(heap, (again, 4 * request + TRIES))
        run_seconds[kind] += ends - began
        push(environments.ends[kind], ends)
    instance_seconds += billed * (trace.duration - billed_since)
    return Outcome(
        duration=trace.duration,
        status=np.frombuffer(status, dtype=np.uint8),
        latency=np.frombuffer(latency),
        cold_starts=cold_starts,
        spilled=spilled,
        decisions=decisions,
        capacity=capacity,
        billed=billing,
        instance_seconds=instance_seconds,
        provisioned_seconds=run_seconds[0],
        on_demand_seconds=run_seconds[1],
        asynchronous=queue is not None,
        retried=retried,
        run_again=run_again,
        bounds=[(0.0, policy.minimum, policy.maximum)]
        + [(change.time, change.action.minimum, change.action.maximum) for change in changes],
        changes=changes,
    )
