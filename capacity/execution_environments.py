"""A Lambda function's execution environments: who is served by a warm one, a new one, or none."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from heapq import heappop

from capacity.event_queue import Events

# What `admit` answers.
PROVISIONED, WARM, COLD, THROTTLED = range(4)

# AWS's limits: requests a second for each unit of concurrency, and environments made in any ten seconds.
REQUESTS_PER_SECOND_AND_CONCURRENCY = 10
NEW_ENVIRONMENTS, NEW_ENVIRONMENTS_SECONDS = 1000, 10.0

# AWS documents no figure; users observe five to fifteen minutes.
IDLE_SECONDS = 600.0


@dataclass(frozen=True)
class Function:
    """A function; durations in seconds.

    overhead: what it takes beside waiting for the endpoint. idle: how long an environment stays without a request.
    events: where it is invoked asynchronously.
    """

    concurrency: int
    provisioned: int
    overhead: float
    cold_start: float
    timeout: float
    idle: float = IDLE_SECONDS
    events: Events | None = None


class ExecutionEnvironments:
    """Concurrency in use. Provisioned concurrency counts inside the limit, and is taken first; there is no queue."""

    def __init__(self, function: Function) -> None:
        self._concurrency, self._provisioned, self._idle = function.concurrency, function.provisioned, function.idle
        self._provisioned_busy = self._on_demand_busy = 0
        # When the invocations under way end, as soon as that is known: heaps of the provisioned and of those on demand.
        self.ends: tuple[list[float], list[float]] = [], []
        # Since when each idle environment on demand is so, ascending: the last one freed is the first one taken.
        self._idle_since: list[float] = []
        self._starts: deque[float] = deque(maxlen=function.concurrency * REQUESTS_PER_SECOND_AND_CONCURRENCY)
        self._most_starts = self._starts.maxlen
        self._made: deque[float] = deque(maxlen=NEW_ENVIRONMENTS)

    def admit(self, now: float) -> int:
        """Begin an invocation: PROVISIONED, WARM or COLD, or THROTTLED (429). Never earlier than the one before."""
        provisioned_ends, ends = self.ends
        # What ends makes room for what begins at that moment.
        while provisioned_ends and provisioned_ends[0] <= now:
            heappop(provisioned_ends)
            self._provisioned_busy -= 1
        while ends and ends[0] <= now:
            self._idle_since.append(heappop(ends))
            self._on_demand_busy -= 1
        starts = self._starts
        busy = self._provisioned_busy + self._on_demand_busy
        if busy >= self._concurrency or (len(starts) == self._most_starts and now - starts[0] < 1):
            return THROTTLED
        if self._provisioned_busy < self._provisioned:
            self._provisioned_busy += 1
            kind = PROVISIONED
        else:
            if self._idle_since and now - self._idle_since[-1] <= self._idle:
                self._idle_since.pop()
                kind = WARM
            else:
                self._idle_since.clear()
                made = self._made
                if len(made) == NEW_ENVIRONMENTS and now - made[0] < NEW_ENVIRONMENTS_SECONDS:
                    return THROTTLED
                made.append(now)
                kind = COLD
            self._on_demand_busy += 1
        starts.append(now)
        return kind
