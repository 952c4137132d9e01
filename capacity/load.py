"""Load on a server: one client after another's answer, or an open loop that sends whether it answers or not.

In the open loop a request's time runs from the moment it was due, not from when it was sent: a client that waits for a
slow server would leave out just the requests that wait longest (coordinated omission).
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from capacity import connection
from capacity.connection import Connection
from capacity.invocation import Invocation

MOST_IN_FLIGHT = 1000


@dataclass
class Step:
    """What came of some seconds of Poisson arrivals.

    latencies: seconds from when each measured request was due until its answer with 200, inf where there was none.
    outcomes: of all requests, the warm-up's included: a status, `timeout` or `reset`. lateness: seconds by which each
    was sent after it was due. overloaded: MOST_IN_FLIGHT were waiting, and the rest was not sent.
    """

    rate: float
    seconds: float
    latencies: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    lateness: list[float] = field(default_factory=list)
    overloaded: bool = False

    def quantile(self, share: float) -> float:
        """The latency that `share` of the measured requests do not exceed; inf of none."""
        return float(np.quantile(self.latencies, share, method="inverted_cdf")) if self.latencies else float("inf")

    def holds(self, slo_seconds: float) -> bool:
        """Whether the slowest hundredth was answered in time."""
        return not self.overloaded and self.quantile(0.99) <= slo_seconds

    def late(self, share: float = 0.99) -> float:
        """How late the load itself was."""
        return float(np.quantile(self.lateness, share)) if self.lateness else 0.0


class Clients:
    """As many connections to a server as there are requests under way, kept open in between."""

    def __init__(self, invocation: Invocation, timeout: float) -> None:
        self._invocation, self._timeout = invocation, timeout
        self._tls = ssl.create_default_context() if invocation.tls else None
        self._idle: list[Connection] = []

    async def send(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer. Raises TimeoutError, OSError, EOFError, and ValueError for what is no HTTP."""
        async with asyncio.timeout(self._timeout):
            used = await self._connection()
            try:
                status, headers, body = await connection.exchange(used, request)
            except BaseException:
                used[1].close()
                raise
        if connection.reusable(used, headers):
            self._idle.append(used)
        else:
            used[1].close()
        return status, body

    async def close(self) -> None:
        while self._idle:
            await connection.close(self._idle.pop())

    async def _connection(self) -> Connection:
        while self._idle:
            used = self._idle.pop()
            if not used[0].at_eof():  # the server may have ended it meanwhile
                return used
            used[1].close()
        return await asyncio.open_connection(self._invocation.host, self._invocation.port, ssl=self._tls)


async def offer(
    invocation: Invocation, rate: float, seconds: float, warm_up: float, timeout: float, seed: int = 0
) -> Step:
    """Send Poisson arrivals of `rate` a second for `warm_up` seconds, not measured, and then for `seconds`."""
    step, clients = Step(rate, seconds), Clients(invocation, timeout)
    draws = np.random.default_rng(seed)
    moments = np.sort(draws.random(draws.poisson(rate * (warm_up + seconds)))) * (warm_up + seconds)
    waiting: set[asyncio.Task] = set()

    async def send(due: float, request: bytes, measured: bool) -> None:
        latency = float("inf")
        try:
            status, _ = await clients.send(request)
            outcome = str(status)
            if status == 200:
                latency = time.perf_counter() - due
        except TimeoutError:
            outcome = "timeout"
        except (OSError, EOFError, ValueError):
            outcome = "reset"
        step.outcomes[outcome] += 1
        if measured:
            step.latencies.append(latency)

    begin = time.perf_counter()
    for moment in moments:
        request = invocation.encode()  # before it is due: signing takes a while
        due = begin + float(moment)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        if len(waiting) >= MOST_IN_FLIGHT:
            step.overloaded = True
            break
        step.lateness.append(time.perf_counter() - due)
        task = asyncio.create_task(send(due, request, bool(moment >= warm_up)))
        waiting.add(task)
        task.add_done_callback(waiting.discard)
    await asyncio.gather(*waiting)
    await clients.close()
    return step


async def one_after_another(
    invocation: Invocation, seconds: float, warm_up: int, least: int, most: int, timeout: float
) -> list[float]:
    """Seconds that each answer took a single client, `warm_up` requests before them left out.

    At least `least` of them and at most `most`, for `seconds`. Raises what Clients.send does, and Refused.
    """
    clients, taken = Clients(invocation, timeout), []
    until = time.perf_counter() + seconds
    while len(taken) < warm_up + most and (time.perf_counter() < until or len(taken) < warm_up + least):
        request = invocation.encode()
        begin = time.perf_counter()
        status, body = await clients.send(request)
        taken.append(time.perf_counter() - begin)
        if status != 200:
            raise Refused(status, body)
    await clients.close()
    return taken[warm_up:]


class Refused(Exception):
    """An answer that is not 200; its status and body."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"{status} {body[:200].decode(errors='replace')}")
