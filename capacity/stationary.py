"""Queueing theory for a stack at a steady rate: what is refused, what fails, and how long answers take.

Arrivals are Poisson. The function is a delay whose concurrency bounds how many requests are in it; each instance is a
queue with workers. As a network of queues it has a product form (Baskett, Chandy, Muntz and Palacios, 1975), which also
holds where arrivals beyond a number are lost; service times that are not exponential are taken in by their variance, as
in the diffusion approximation of a queue.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from capacity.endpoint import Variant
from capacity.execution_environments import REQUESTS_PER_SECOND_AND_CONCURRENCY, Function
from capacity.profile import Profile

RATE_STEP = 1.02  # rates are rounded to powers of it, so that a state is computed once
LATENCIES = 2048
FARTHEST = 12.0  # standard deviations from the mean number in the system, beyond which nobody is


@dataclass
class States:
    """What happens at some number of instances, by the number of a rate.

    refused: share of the requests; failed: share of those let in that find a full queue; sojourn: mean seconds of a
    request in the function; found: chances of finding so many requests at the instance, shape (rates, places).
    """

    known: np.ndarray
    refused: np.ndarray
    failed: np.ndarray
    sojourn: np.ndarray
    found: np.ndarray


@dataclass
class Stationary:
    """The steady states of a stack without its scaling, computed as they are asked for."""

    function: Function
    variant: Variant
    profile: Profile
    slowest_rate: float
    fastest_rate: float
    _states: dict[int, States] = field(default_factory=dict)

    def __post_init__(self) -> None:
        quantiles = (np.arange(4096) + 0.5) / 4096
        self._services = np.interp(
            quantiles, np.linspace(0, 1, len(self.profile.service_seconds)), self.profile.service_seconds
        )
        self.mean = float(self._services.mean())
        self._variability = float(self._services.var()) / self.mean**2
        self._first = math.floor(math.log(self.slowest_rate, RATE_STEP))
        count = math.ceil(math.log(self.fastest_rate, RATE_STEP)) - self._first + 1
        self.rates = RATE_STEP ** (self._first + np.arange(count))
        self._places = self.variant.workers + self.variant.queue_length
        self.latencies, self.later, self._at_endpoint = self._latencies()

    def number(self, rates: np.ndarray) -> np.ndarray:
        """The number of each rate; 0 and what is below the slowest has that of the slowest."""
        powers = np.log(np.maximum(rates, self.slowest_rate)) / math.log(RATE_STEP)
        return np.clip(np.rint(powers).astype(np.int64) - self._first, 0, len(self.rates) - 1)

    def at(self, instances: int, numbers: np.ndarray) -> States:
        """States at some instances; those of `numbers` are known in it."""
        count = len(self.rates)
        if instances not in self._states:
            empty = np.zeros(count)
            found = np.zeros((count, self._places))
            self._states[instances] = States(np.zeros(count, bool), empty, empty.copy(), empty.copy(), found)
        states = self._states[instances]
        wanted = np.unique(numbers)
        wanted = wanted[~states.known[wanted]]
        if len(wanted):
            refused, failed, found = self._solve(self.rates[wanted], instances)
            states.refused[wanted], states.failed[wanted], states.found[wanted] = refused, failed, found
            states.sojourn[wanted] = self.function.overhead + (1 - failed) * (found @ self._at_endpoint)
            states.known[wanted] = True
        return states

    def _latencies(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Latencies without a cold start; the chance of a later answer, by what it finds; mean seconds at the endpoint.

        Who finds i waiting waits for the rest of a service, spread over the workers, and for i whole ones.
        """
        workers, waiting = self.variant.workers, self.variant.queue_length
        longest = self._services[-1] * (2 + (waiting + 1) / workers)
        # One who would be answered after the timeout is not; how long after it does not matter.
        horizon = min(longest, self.function.timeout)
        step = horizon / 4096
        size = 4 * 4096

        def chances(seconds: np.ndarray) -> np.ndarray:
            whole = np.floor(seconds / step).astype(np.int64)
            part = seconds / step - whole
            pieces = [np.bincount(whole + more, share, size)[:size] for more, share in ((0, 1 - part), (1, part))]
            return sum(pieces) / len(seconds)

        turn = chances(np.minimum(self._services / workers, 2 * horizon))
        rest = 1 - np.cumsum(turn) + turn / 2
        served = np.fft.rfft(chances(np.minimum(self._services, 2 * horizon)))
        turned, rested = np.fft.rfft(turn), np.fft.rfft(np.maximum(rest, 0) / np.maximum(rest, 0).sum())
        grid = np.arange(size) * step
        latencies = np.linspace(0, horizon, LATENCIES)
        later, means = np.ones((self._places, LATENCIES)), np.empty(self._places)
        for found in range(self._places):
            ahead = found - workers
            means[found] = self.mean * (1 + max(0.0, ahead + (1 + self._variability) / 2) / workers * (ahead >= 0))
            if means[found] < 2 * horizon:
                ends = np.fft.irfft(served if ahead < 0 else served * rested * turned**ahead, size)
                later[found] = np.interp(latencies, grid, 1 - np.cumsum(np.maximum(ends, 0)))
        return self.function.overhead + latencies, np.clip(later, 0, 1), means

    def _solve(self, rates: np.ndarray, instances: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Shares refused and failed, and what the others find."""
        workers = self.variant.workers
        weights = self._station(rates / instances)
        # How many others there may be beside those at one instance: `beside` of m is the chance of m or fewer.
        with_all, with_others = self._beside(weights, rates, instances)
        inside, seen = weights * with_all, weights * with_others
        busy = (inside * np.minimum(np.arange(self._places + 1), workers)).sum(1) / inside.sum(1)
        # What is worked on is what came in; the rest is lost, at the function or at the instances.
        lost = np.clip(1 - instances * busy / self.mean / rates, 0, 1)
        full = np.clip(1 - seen.sum(1) / inside.sum(1), 0, 1)
        queue_full = seen[:, -1] / seen.sum(1)
        of_function = full / np.maximum(full + (1 - full) * queue_full, 1e-300)
        limit = REQUESTS_PER_SECOND_AND_CONCURRENCY * self.function.concurrency
        refused = np.maximum(lost * of_function, 1 - limit / rates)
        failed = np.clip((lost - lost * of_function) / np.maximum(1 - refused, 1e-12), 0, 1)
        found = seen[:, :-1]
        return refused, failed, found / np.maximum(found.sum(1, keepdims=True), 1e-300)

    def _station(self, rates: np.ndarray) -> np.ndarray:
        """Relative chances of 0, 1, ... requests at an instance to which so many come a second, the largest being 1."""
        workers = self.variant.workers
        load = np.maximum(rates, 1e-9) * self.mean
        use = load / workers
        use = np.where(np.abs(use - 1) < 1e-6, 1 - 1e-6, use)
        decay = 2 / (1 + self._variability) * np.log(use)
        # So that as many wait as do by Erlang C, whatever the decay.
        begin = np.log(use * np.expm1(decay) / (np.exp(decay) * (use - 1)))
        count = np.arange(self._places + 1)
        working, waiting = np.minimum(count, workers), np.maximum(count - workers, 0)
        factorials = np.array([math.lgamma(number + 1) for number in working])
        logarithms = working * np.log(load)[:, None] - factorials + waiting * decay[:, None]
        logarithms += (waiting > 0) * begin[:, None]
        return np.exp(logarithms - logarithms.max(1, keepdims=True))

    def _beside(self, weights: np.ndarray, rates: np.ndarray, instances: int) -> tuple[np.ndarray, np.ndarray]:
        """Relative chances that the rest of the stack leaves room for 0, 1, ... requests at one instance.

        Among all that may be in the function, and among one fewer, as somebody on the way to the instance sees it.
        """
        limit, places = self.function.concurrency, np.arange(self._places + 1)
        delayed = rates * self.function.overhead
        with_all, with_others = np.ones_like(weights), np.ones_like(weights)

        def number(tilt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            """Mean and variance of how many are in the stack, where each one weighs exp(tilt)."""
            logarithms = np.log(np.maximum(weights, 1e-300)) + tilt[:, None] * places
            tilted = np.exp(logarithms - logarithms.max(1, keepdims=True))
            tilted /= tilted.sum(1, keepdims=True)
            mean, outside = tilted @ places, delayed * np.exp(tilt)
            return instances * mean + outside, instances * (tilted @ places**2 - mean**2) + outside

        mean, variance = number(np.zeros(len(rates)))
        most = instances * self._places + delayed + FARTHEST * np.sqrt(delayed) + FARTHEST
        bound = np.flatnonzero(np.minimum(mean + FARTHEST * np.sqrt(variance) + FARTHEST, most) > limit)
        if not len(bound):
            return with_all, with_others
        # Where more would come in than may, each one is given less weight: what is far from the limit costs digits.
        low, high = np.full(len(rates), -60.0), np.zeros(len(rates))
        for _ in range(40):
            middle = (low + high) / 2
            above = number(middle)[0] > limit
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        tilt = np.where(mean > limit, low, 0.0)
        mean, variance = number(tilt)
        farthest = np.minimum(mean + FARTHEST * np.sqrt(variance), instances * self._places + delayed)
        farthest += FARTHEST * np.sqrt(delayed) + 2 * FARTHEST + self._places
        size = 2 ** math.ceil(math.log2(max(farthest[bound].max(), limit + 2)))
        frequencies = np.exp(-2j * math.pi * np.arange(size // 2 + 1) / size)
        for row in bound:  # one at a time: all together they would not fit into the processor's cache
            tilted = weights[row] * np.exp(tilt[row] * (places - places[weights[row].argmax()]))
            others = np.fft.rfft(tilted / tilted.sum(), size) ** (instances - 1)
            others *= np.exp(delayed[row] * math.exp(tilt[row]) * (frequencies - 1))
            chances = np.maximum(np.fft.irfft(others, size)[: limit + 1], 0)
            fewer = np.cumsum(chances * np.exp(tilt[row] * np.arange(limit, limit - len(chances), -1)))
            room = np.concatenate([np.zeros(len(places) + 1), fewer])  # room for m others stands at m + len(places) + 1
            with_all[row] = room[limit + len(places) + 1 - places]
            with_others[row] = room[limit + len(places) - places]
        return with_all, with_others
