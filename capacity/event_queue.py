"""Lambda's queue of asynchronous events: what is tried again, when, and what is given up to the dead-letter queue.

https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1.0, 300.0
ERROR_WAITS_SECONDS = (60.0, 120.0)


@dataclass(frozen=True)
class Events:
    """How a function treats its asynchronous events, in seconds.

    maximum_age: an event older than that is given up. error_waits: before each further run of an event that ended in an
    error; none where the function answers its errors, which Lambda takes for success.
    """

    maximum_age: float = 6 * 3600.0
    error_waits: tuple[float, ...] = ERROR_WAITS_SECONDS


class EventQueue:
    """The events that were tried. That Lambda waits longer while its queue is long, it documents without figures."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._throttles: dict[int, int] = {}
        self._errors: dict[int, int] = {}

    def ran(self, event: int) -> bool:
        """Whether an event has been run, which ended in an error."""
        return event in self._errors

    def after_throttle(self, event: int, now: float, arrived: float) -> float | None:
        """When an event that was throttled is tried again; None where it is given up. The waits double."""
        before = self._throttles.get(event, 0)
        self._throttles[event] = before + 1
        # Not 2 ** before alone: an event of hours would be told to wait for years.
        return self._again(now + min(FIRST_WAIT_SECONDS * 2 ** min(before, 16), LONGEST_WAIT_SECONDS), arrived)

    def after_error(self, event: int, now: float, arrived: float) -> float | None:
        """When an event whose run ended in an error is run again; None where it is given up."""
        before = self._errors.get(event, 0)
        self._errors[event] = before + 1
        waits = self._events.error_waits
        return self._again(now + waits[before], arrived) if before < len(waits) else None

    def _again(self, when: float, arrived: float) -> float | None:
        return when if when - arrived <= self._events.maximum_age else None
