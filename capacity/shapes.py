"""Named traces: a day of requests, 2 a second on average."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from capacity.trace import Trace

DAY_SECONDS = 86_400.0
REQUESTS_PER_SECOND = 2.0

# The busiest hour has nine times the requests of the quietest.
DIURNAL_SWING = 0.8

# Bursts of two minutes on average, a quarter of an hour apart, at ten times the quiet rate.
QUIET_SECONDS, BURST_SECONDS, BURST_RATIO = 900.0, 120.0, 10.0


def poisson(seed: int = 0, rate: float = REQUESTS_PER_SECOND, duration: float = DAY_SECONDS) -> Trace:
    """Arrivals independent of each other, `rate` a second throughout."""
    return Trace("poisson", _homogeneous(np.random.default_rng(seed), rate, duration), duration)


def diurnal(seed: int = 0, rate: float = REQUESTS_PER_SECOND, duration: float = DAY_SECONDS) -> Trace:
    """A Poisson process whose rate follows a sine of one day, least at midnight, by thinning its highest rate."""
    draws = np.random.default_rng(seed)
    candidates = _homogeneous(draws, rate * (1 + DIURNAL_SWING), duration)
    now = rate * (1 - DIURNAL_SWING * np.cos(2 * math.pi * candidates / DAY_SECONDS))
    kept = draws.random(len(candidates)) * rate * (1 + DIURNAL_SWING) < now
    return Trace("diurnal", candidates[kept], duration)


def bursty(seed: int = 0, rate: float = REQUESTS_PER_SECOND, duration: float = DAY_SECONDS) -> Trace:
    """A Poisson process that a two-state Markov chain switches between a quiet rate and bursts (MMPP)."""
    draws = np.random.default_rng(seed)
    quiet_rate = rate * (QUIET_SECONDS + BURST_SECONDS) / (QUIET_SECONDS + BURST_SECONDS * BURST_RATIO)
    pieces, time, burst = [], 0.0, False
    while time < duration:
        length = min(draws.exponential(BURST_SECONDS if burst else QUIET_SECONDS), duration - time)
        pieces.append(time + _homogeneous(draws, quiet_rate * (BURST_RATIO if burst else 1), length))
        time, burst = time + length, not burst
    return Trace("bursty", np.concatenate(pieces), duration)


SHAPES: dict[str, Callable[[int], Trace]] = {"bursty": bursty, "diurnal": diurnal, "poisson": poisson}


def _homogeneous(draws: np.random.Generator, rate: float, duration: float) -> np.ndarray:
    """Given how many come, the arrivals of a Poisson process lie anywhere in its time with equal chance."""
    arrivals = draws.random(draws.poisson(rate * duration)) * duration
    arrivals.sort()
    return arrivals
