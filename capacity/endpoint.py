"""An endpoint's instances, each with its workers and its queue."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from heapq import heapreplace


@dataclass(frozen=True)
class Variant:
    """A production variant.

    workers: requests an instance works on at a time; queue_length: requests that wait for one, any more are refused.
    update_seconds: from a change of the number of instances until the endpoint is InService again.
    """

    workers: int
    queue_length: int
    update_seconds: float


class Endpoint:
    """Requests go to an instance at random, SageMaker's default, and are served there in the order they come."""

    def __init__(self, variant: Variant, instances: int, seed: int) -> None:
        self._variant = variant
        self._random = random.Random(seed).random
        # Of each instance: when each of its workers is free (a heap), and when each waiting request starts (ascending).
        self._instances: list[tuple[list[float], deque[float]]] = []
        self.resize(instances)

    def resize(self, instances: int) -> None:
        """Serve with so many instances. One taken away finishes what it has accepted."""
        del self._instances[instances:]
        while len(self._instances) < instances:
            self._instances.append(([0.0] * self._variant.workers, deque()))

    def accept(self, now: float, service_seconds: float) -> float | None:
        """When a request that comes now is answered, in seconds; None where its instance's queue is full (503).

        First come, first served: so its end is known when it comes, and no event is needed in between.
        """
        instances = self._instances
        count = len(instances)
        workers, waiting = instances[int(self._random() * count)] if count > 1 else instances[0]
        start = workers[0]
        if start <= now:
            start = now
        else:
            while waiting and waiting[0] <= now:
                waiting.popleft()
            if len(waiting) >= self._variant.queue_length:
                return None
            waiting.append(start)
        ends = start + service_seconds
        heapreplace(workers, ends)
        return ends
