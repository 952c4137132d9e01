"""The simulation against Ciw, a simulator of queueing networks: within its confidence interval on what both express.

That Ciw and the simulation answer the very same requests after the same time, given the same draws, is tested with the
bench that times them (tests/bench/test_capacity.py). Here each draws for itself.
"""

import math

import ciw
import numpy as np
import pytest
from scipy import stats

from capacity.endpoint import Variant
from capacity.execution_environments import Function
from capacity.shapes import poisson
from capacity.simulation import ANSWERED, System, simulate
from capacity.target_tracking import Policy

RATE, FETCH_SECONDS, SERVICE_SECONDS = 5.0, 0.2, 0.3
REPLICATIONS, SECONDS, MARGIN_SECONDS = 20, 2_000.0, 100.0
STATIC = Policy(target=math.inf, minimum=1, maximum=1, scale_in_cooldown=0, scale_out_cooldown=0)

# Two workers and four places to wait for them; then five at a time in the function, which fetches before it asks.
FULL_QUEUE = System(Function(10_000, 10_000, 0.0, 0.0, math.inf), Variant(2, 4, update_seconds=60), STATIC)
FULL_FUNCTION = System(Function(5, 5, FETCH_SECONDS, 0.0, math.inf), Variant(2, 5, update_seconds=60), STATIC)


def full_queue() -> ciw.network.Network:
    return ciw.create_network(
        arrival_distributions=[ciw.dists.Exponential(RATE)],
        service_distributions=[ciw.dists.Exponential(1 / SERVICE_SECONDS)],
        number_of_servers=[2],
        queue_capacities=[4],
    )


def full_function() -> ciw.network.Network:
    return ciw.create_network(
        arrival_distributions=[ciw.dists.Exponential(RATE), None],
        service_distributions=[ciw.dists.Deterministic(FETCH_SECONDS), ciw.dists.Exponential(1 / SERVICE_SECONDS)],
        number_of_servers=[math.inf, 2],
        routing=[[0.0, 1.0], [0.0, 0.0]],
        system_capacity=5,
    )


def figures(refused: float, latency: np.ndarray) -> list[float]:
    """The share of requests refused; the mean and the 95th percentile of the others' seconds."""
    return [refused, latency.mean(), np.percentile(latency, 95)]


def replication(network: ciw.network.Network, seed: int) -> list[float]:
    ciw.seed(seed)
    simulation = ciw.Simulation(network)
    simulation.simulate_until_max_time(SECONDS)
    begins, ends, refused = {}, {}, []
    for record in simulation.get_all_records():
        if record.record_type == "rejection":
            refused.append(record.arrival_date)
        else:
            begins.setdefault(record.id_number, record.arrival_date)  # a customer's records come in order
            ends[record.id_number] = record.exit_date
    # Without the first, who find it empty, and the last, who are still in it at the end.
    first, last = MARGIN_SECONDS, SECONDS - MARGIN_SECONDS
    latency = np.array([ends[number] - begin for number, begin in begins.items() if first < begin < last])
    refusals = sum(first < date < last for date in refused)
    return figures(refusals / (refusals + len(latency)), latency)


@pytest.mark.parametrize(("network", "system"), [(full_queue, FULL_QUEUE), (full_function, FULL_FUNCTION)])
def test_within_the_confidence_interval_of_ciw(network, system):
    theirs = np.array([replication(network(), seed) for seed in range(REPLICATIONS)])
    middle = theirs.mean(axis=0)
    half = stats.t.ppf(0.995, REPLICATIONS - 1) * theirs.std(axis=0, ddof=1) / math.sqrt(REPLICATIONS)
    assert (half < 0.07 * middle).all()  # a wide interval would hold anything

    trace = poisson(1, RATE, 100_000.0)
    services = np.random.default_rng(2).exponential(SERVICE_SECONDS, len(trace.arrivals))
    outcome = simulate(trace, services, system)
    answered = outcome.status == ANSWERED
    ours = figures(1 - answered.mean(), outcome.latency[answered])
    assert (np.abs(ours - middle) <= half).all(), (ours, middle, half)
