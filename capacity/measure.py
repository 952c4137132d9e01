"""Measure a server: what a request takes, and the highest rate that keeps the slowest hundredth within an objective."""

from __future__ import annotations

import asyncio
import json
import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from ipaddress import ip_address

import numpy as np

from capacity.endpoint import Endpoint, Variant
from capacity.errors import UserError
from capacity.invocation import Invocation
from capacity.load import Refused, Step, offer, one_after_another
from capacity.shapes import poisson
from capacity.target_tracking import target_of

QUANTILES = 101
SIMULATED_REQUESTS = 20_000
LEAST_REQUESTS = 200  # of a step, where it may last that long: two of them are the slowest hundredth
LONGEST_STEP = 3.0  # times the seconds of a step
WARM_UP_REQUESTS, LEAST_ANSWERS, MOST_ANSWERS = 5, 20, 1000
LATE_SHARE = 0.1  # of the objective: what the load may be late before it is called the limit


@dataclass(frozen=True)
class Limits:
    """Where a measurement ends: seconds of one step, and of all; requests of all; how near the two rates must come."""

    step_seconds: float = 20.0
    most_seconds: float = 300.0
    most_requests: int = 20_000
    resolution: float = 0.1
    lowest_rate: float = 0.5
    timeout: float = 10.0


@dataclass(frozen=True)
class Bracket:
    """The highest rate that held and the lowest that did not, in requests a second; None where there was none.

    limited_by_load: whether the client, not the server, may be what did not hold. steps: what was tried, in order.
    """

    held: float | None
    failed: float | None
    limited_by_load: bool = False
    steps: Sequence[Step] = ()


class OutOfBudget(Exception):
    """The next step would take more time or more requests than are allowed."""


def bracket(holds: Callable[[float], bool], first: float, lowest: float, resolution: float) -> tuple:
    """(highest rate that held, lowest that did not): doubled or halved from `first` on, then bisected.

    Either is None where there was none: `lowest` is the last rate tried downwards, and `holds` may raise OutOfBudget.
    """
    held = failed = None
    with suppress(OutOfBudget):
        rate = max(first, lowest)
        while True:
            if holds(rate):
                held = rate
            else:
                failed = rate
            if held is None:
                if failed <= lowest:
                    break
                rate = max(failed / 2, lowest)
            elif failed is None:
                rate = held * 2
            elif failed <= held * (1 + resolution):
                break
            else:
                rate = (held + failed) / 2
    return held, failed


def service_times(invocation: Invocation, seconds: float, timeout: float) -> np.ndarray:
    """Seconds of each answer to one client, which has the server to itself; shape (answers,).

    Raises UserError where the server cannot be reached, or answers anything but 200.
    """
    try:
        taken = asyncio.run(
            one_after_another(invocation, seconds, WARM_UP_REQUESTS, LEAST_ANSWERS, MOST_ANSWERS, timeout)
        )
    except Refused as refused:
        raise UserError(f"--url {invocation.url}: answered {refused}: only 200 can be measured") from None
    except TimeoutError:
        raise UserError(f"--url {invocation.url}: no answer within {timeout:g} s: raise --timeout-seconds") from None
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"--url {invocation.url}: cannot be reached: {error}: is the server running?") from None
    return np.array(taken)


def highest_rate(
    invocation: Invocation,
    slo_seconds: float,
    first: float,
    limits: Limits,
    say: Callable[[str], None],
    seed: int = 0,
) -> Bracket:
    """Step the rate until it is bracketed to within the resolution, or the limits are reached.

    Raises UserError where they do not allow a single step.
    """
    began, sent, late, steps = time.monotonic(), 0, {}, []

    def holds(rate: float) -> bool:
        nonlocal sent
        seconds = min(max(limits.step_seconds, LEAST_REQUESTS / rate), LONGEST_STEP * limits.step_seconds)
        warm_up = seconds / 5
        ends = time.monotonic() - began + seconds + warm_up
        if ends > limits.most_seconds or sent + rate * (seconds + warm_up) > limits.most_requests:
            if not late:
                raise UserError(f"not one step of {rate:.2f}/s is allowed: raise --most-seconds or --most-requests")
            say(f"stopped before {rate:.2f}/s: --most-seconds or --most-requests would not allow it")
            raise OutOfBudget
        # Another seed for each step: the same gaps would meet every rate.
        step = asyncio.run(offer(invocation, rate, seconds, warm_up, limits.timeout, seed + len(late)))
        sent += sum(step.outcomes.values())
        steps.append(step)
        held = step.holds(slo_seconds)
        late[rate] = step.late() > LATE_SHARE * slo_seconds
        say(_line(step, held) + (f"; the load was {step.late() * 1000:.0f} ms late" if late[rate] else ""))
        return held

    held, failed = bracket(holds, first, limits.lowest_rate, limits.resolution)
    return Bracket(held, failed, late.get(failed, False), steps)


def most_rate(service_seconds: np.ndarray, workers: int) -> float:
    """Requests a second at which the workers are busy all the time, if none is in another's way."""
    return workers / float(service_seconds.mean())


def simulated_p99(service_seconds: np.ndarray, workers: int, queue_length: int, rate: float) -> float:
    """The p99 in seconds, inf where more are refused, that a profile of these service times has in a simulation."""
    arrivals = poisson(rate=rate, duration=SIMULATED_REQUESTS / rate).arrivals.tolist()
    services = np.random.default_rng(0).choice(service_seconds, len(arrivals)).tolist()
    endpoint = Endpoint(Variant(workers, queue_length, update_seconds=0), instances=1, seed=0)
    ends = [endpoint.accept(now, service) for now, service in zip(arrivals, services, strict=True)]
    took = [math.inf if end is None else end - now for now, end in zip(arrivals, ends, strict=True)]
    return float(np.quantile(took, 0.99, method="inverted_cdf"))


def slowdown(service_seconds: np.ndarray, workers: int, queue_length: int, slo_seconds: float, found: Bracket) -> float:
    """How many times as long as alone requests must take, for the rate that failed to fail in a simulation too.

    1 where it does so anyway, and where the search, or the load, does not tell how much the server can do.
    """
    if found.held is None or found.failed is None or found.limited_by_load:
        return 1.0

    def fails(times: float) -> bool:
        return simulated_p99(service_seconds * times, workers, queue_length, found.failed) > slo_seconds

    # With more than all its workers' time asked for, a server fails, whatever its queue.
    low, high = 1.0, max(1.0, 1.2 * most_rate(service_seconds, workers) / found.failed)
    if fails(low):
        return 1.0
    while high - low > 0.01:
        middle = (low + high) / 2
        low, high = (low, middle) if fails(middle) else (middle, high)
    return float(high)


def profile_of(
    invocation: Invocation,
    service_seconds: np.ndarray,
    instance_type: str,
    workers: int,
    queue_length: int,
    slo_seconds: float,
    found: Bracket,
    slower: float,
    today: date,
) -> dict:
    """The content of a profile file. See capacity.profile, and slowdown for `slower`."""
    content = {
        "instance_type": instance_type,
        "source": f"measured at {invocation.url}",
        "date": today.isoformat(),
        "workers": workers,
        "queue_length": queue_length,
        "service_seconds": np.quantile(service_seconds, np.linspace(0, 1, QUANTILES)).round(6).tolist(),
    }
    if _is_here(invocation.host):
        content["machine"] = machine()
    if found.held is not None:
        content |= {"slo_p99_ms": slo_seconds * 1000, "max_rps": round(found.held, 3)}
    if slower > 1:
        content["slowdown"] = round(slower, 2)
    return content


def as_json(content: dict) -> str:
    """A profile's text. A list stands on one line: a hundred lines of quantiles are nothing to read."""
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in content.items())
    return f"{{\n{lines}\n}}\n"


def summary(
    found: Bracket, slo_seconds: float, most: float, simulated: Callable[[float], float], slower: float
) -> list[str]:
    """What was found, a line each; nothing where no rate held.

    most: see most_rate. simulated: the p99 of a rate, in seconds, see simulated_p99. slower: see slowdown.
    """
    if found.held is None:
        return []
    lines = [
        f"at most {found.held:.2f}/s keep p99 within {slo_seconds * 1000:g} ms; "
        + (f"{found.failed:.2f}/s do not" if found.failed else "no rate was seen that does not: raise the limits"),
        f"half of it for safety is a target of {target_of(found.held):.0f} invocations per instance and minute",
    ]
    rates = [rate for rate in (found.held, found.failed) if rate]
    p99s = [f"{_ms(simulated(rate))} at {rate:.2f}/s" for rate in rates]
    lines.append(f"simulated with these service times, p99 is {' and '.join(p99s)}")
    if found.failed and simulated(found.failed) <= slo_seconds:
        lines.append("which is too good: the workers are slower together than alone, or the machine has other work")
    if slower > 1:
        lines.append(
            f"the profile has requests take {slower:.2f} times as long, with which {found.failed:.2f}/s fail too"
        )
    if found.held > most:
        lines.append(f"so many workers can do {most:.2f}/s by their service times: the server has more, see --workers")
    if found.limited_by_load:
        lines.append("the load was late where it did not hold: measure from a machine that is less busy")
    return lines


def machine() -> str:
    """The machine this runs on, in words."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"


def _line(step: Step, held: bool) -> str:
    good = step.outcomes["200"]
    bad = "".join(f", {count} x {what}" for what, count in sorted(step.outcomes.items()) if what != "200")
    return (
        f"{step.rate:8.2f}/s for {step.seconds:.0f} s: {good} answered{bad}; p50 {_ms(step.quantile(0.5))}, "
        f"p99 {_ms(step.quantile(0.99))}: {'holds' if held else 'does not hold'}"
        + (", more waited than the load can have open" if step.overloaded else "")
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms" if math.isfinite(seconds) else "none"


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
