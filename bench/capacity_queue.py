"""One queue in four programs: requests come to servers, wait in a queue with so many places, or are refused.

It is what our system, SimPy and Ciw can all express. Each gets the same arrivals and service times, and so must answer
the same requests after the same time. The peers are written as their documentation has it; SimPy a second time without
its processes and resources, which is faster, and where its users end who profile.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import ciw
import numpy as np
import simpy

from bench.rounds import Seconds, Stopwatch
from capacity.endpoint import Variant
from capacity.execution_environments import Function
from capacity.shapes import poisson
from capacity.simulation import System, simulate
from capacity.system import ACCOUNT_CONCURRENCY
from capacity.target_tracking import Policy
from capacity.trace import Trace

# Four fifths of the servers are busy on average, and a few requests in a thousand are refused.
RATE, SERVICE_SECONDS = 2.0, 1.6
SERVERS, PLACES = 4, 16
SYSTEM = System(
    Function(ACCOUNT_CONCURRENCY, ACCOUNT_CONCURRENCY, overhead=0.0, cold_start=0.0, timeout=math.inf),
    Variant(SERVERS, PLACES, update_seconds=60),
    Policy(target=math.inf, minimum=1, maximum=1, scale_in_cooldown=0, scale_out_cooldown=0),
)


@dataclass(frozen=True)
class Run:
    """latency: seconds from each request to its answer, 0 where it was refused; float64, shape (requests,)."""

    seconds: Seconds
    latency: np.ndarray


def demand(requests: int) -> tuple[Trace, np.ndarray]:
    """About so many requests, and the service time of each in seconds, float64, shape (requests,)."""
    trace = poisson(1, RATE, requests / RATE)
    return trace, np.random.default_rng(2).exponential(SERVICE_SECONDS, len(trace.arrivals))


def ours(requests: int) -> Run:
    """The whole simulation, of a system in which only the queue matters."""
    trace, services = demand(requests)
    watch = Stopwatch()
    outcome = simulate(trace, services, SYSTEM)
    return Run(watch.read(), outcome.latency)


def lists(requests: int) -> tuple[list[float], list[float]]:
    """The arrivals and service times, as the peers take them."""
    trace, services = demand(requests)
    return trace.arrivals.tolist(), services.tolist()


def simpy_processes(requests: int) -> Run:
    """SimPy with a process for each request and a Resource for the servers."""
    arrivals, services = lists(requests)
    watch = Stopwatch()
    environment = simpy.Environment()
    servers = simpy.Resource(environment, SERVERS)
    latency = [0.0] * len(arrivals)

    def request(number: int):
        with servers.request() as turn:
            yield turn
            yield environment.timeout(services[number])
        latency[number] = environment.now - arrivals[number]

    def source():
        for number, arrival in enumerate(arrivals):
            yield environment.timeout(arrival - environment.now)
            if len(servers.queue) < PLACES:
                environment.process(request(number))

    environment.process(source())
    environment.run()
    return Run(watch.read(), np.array(latency))


def simpy_callbacks(requests: int) -> Run:
    """SimPy as no more than a clock: an event for each arrival and each end, the queue kept by hand."""
    arrivals, services = lists(requests)
    watch = Stopwatch()
    environment = simpy.Environment()
    free, queue = SERVERS, deque()
    latency = [0.0] * len(arrivals)

    def begin(number: int) -> None:
        environment.timeout(services[number], number).callbacks.append(end)

    def end(event: simpy.Event) -> None:
        nonlocal free
        latency[event.value] = environment.now - arrivals[event.value]
        if queue:
            begin(queue.popleft())
        else:
            free += 1

    def source():
        nonlocal free
        for number, arrival in enumerate(arrivals):
            yield environment.timeout(arrival - environment.now)
            if free:
                free -= 1
                begin(number)
            elif len(queue) < PLACES:
                queue.append(number)

    environment.process(source())
    environment.run()
    return Run(watch.read(), np.array(latency))


class Given(ciw.dists.Distribution):
    """The service time of each customer, who are numbered from 1 as they come."""

    def __init__(self, seconds: list[float]):
        self.seconds = seconds

    def sample(self, t: float | None = None, ind: ciw.Individual | None = None) -> float:
        return self.seconds[ind.id_number - 1]


def ciw_node(requests: int) -> Run:
    """Ciw with one node."""
    arrivals, services = lists(requests)
    gaps = [*np.diff(arrivals, prepend=0.0).tolist(), math.inf]
    watch = Stopwatch()
    simulation = ciw.Simulation(
        ciw.create_network(
            arrival_distributions=[ciw.dists.Sequential(gaps)],
            service_distributions=[Given(services)],
            number_of_servers=[SERVERS],
            queue_capacities=[PLACES],
        )
    )
    simulation.simulate_until_max_time(arrivals[-1] + (PLACES + 1) * max(services))
    latency = [0.0] * len(arrivals)
    for record in simulation.get_all_records(only=["service"]):
        latency[record.id_number - 1] = record.exit_date - record.arrival_date
    return Run(watch.read(), np.array(latency))
