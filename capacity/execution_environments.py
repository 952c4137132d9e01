"""A Lambda function's execution environments: who is served by a warm one, a new one, or none."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

# What `admit` answers.
PROVISIONED, WARM, COLD, THROTTLED = range(4)

# AWS's limits: requests a second for each unit of concurrency, and environments made in any ten seconds.
REQUESTS_PER_SECOND_AND_CONCURRENCY = 10
NEW_ENVIRONMENTS, NEW_ENVIRONMENTS_SECONDS = 1000, 10.0


@dataclass(frozen=True)
class Function:
    """A function called synchronously; durations in seconds.

    overhead: what it takes beside waiting for the endpoint. idle: how long an environment stays without a request; AWS
    documents no figure, users observe five to fifteen minutes.
    """

    concurrency: int
    provisioned: int
    overhead: float
    cold_start: float
    timeout: float
    idle: float = 600.0


class ExecutionEnvironments:
    """Concurrency in use. Provisioned concurrency counts inside the limit, and is taken first; there is no queue."""

    def __init__(self, function: Function) -> None:
        self._function = function
        self._busy = self._provisioned_busy = 0
        # Since when each idle environment on demand is so, ascending: the last one freed is the first one taken.
        self._idle_since: list[float] = []
        self._starts: deque[float] = deque(maxlen=function.concurrency * REQUESTS_PER_SECOND_AND_CONCURRENCY)
        self._made: deque[float] = deque(maxlen=NEW_ENVIRONMENTS)

    def admit(self, now: float) -> int:
        """Begin an invocation: PROVISIONED, WARM or COLD, or THROTTLED (429)."""
        function, starts = self._function, self._starts
        if self._busy >= function.concurrency or (len(starts) == starts.maxlen and now - starts[0] < 1):
            return THROTTLED
        if self._provisioned_busy < function.provisioned:
            self._provisioned_busy += 1
            kind = PROVISIONED
        elif self._idle_since and now - self._idle_since[-1] <= function.idle:
            self._idle_since.pop()
            kind = WARM
        else:
            self._idle_since.clear()
            made = self._made
            if len(made) == NEW_ENVIRONMENTS and now - made[0] < NEW_ENVIRONMENTS_SECONDS:
                return THROTTLED
            made.append(now)
            kind = COLD
        starts.append(now)
        self._busy += 1
        return kind

    def release(self, now: float, provisioned: bool) -> None:
        """End an invocation."""
        self._busy -= 1
        if provisioned:
            self._provisioned_busy -= 1
        else:
            self._idle_since.append(now)
