"""Target tracking on invocations per instance and minute: Application Auto Scaling's two alarms and what they do.

AWS documents the alarms, the cooldowns and that steps in are smaller than steps out; how large they are it does not
say. Out is the proportion, rounded up, as users observe. In is either the proportion too, or one instance at a time:
simulate both, the truth lies between. Scheduled actions move the bounds that it keeps to.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal

from capacity.schedule import ScheduledAction

HIGH_DATAPOINTS = 3
LOW_DATAPOINTS = 15
LOW_SHARE = 0.9  # of the target; EC2 Auto Scaling has other figures
SAFETY = 0.5  # the share of its highest rate that SageMaker's documentation would have an instance work at

ScaleIn = Literal["proportional", "one at a time"]


@dataclass(frozen=True)
class Policy:
    """A scalable target and its policy, in instances, invocations per instance and minute, and seconds."""

    target: float
    minimum: int
    maximum: int
    scale_in_cooldown: float
    scale_out_cooldown: float
    scale_in: ScaleIn = "proportional"


@dataclass(frozen=True)
class Decision:
    """A change of capacity, when it was decided (seconds), and what caused it.

    That is an alarm's datapoints, the latest last, or a scheduled action, by name.
    """

    time: float
    before: int
    after: int
    alarm: Literal["high", "low"] | None
    datapoints: tuple[float, ...] = ()
    scheduled: str | None = None


def low_threshold(target: float) -> float:
    """Where the alarm for scaling in lies."""
    return LOW_SHARE * target


def target_of(max_rps: float) -> float:
    """The target, in invocations per instance and minute, for an instance that holds `max_rps` requests a second.

    https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-scaling-loadtest.html
    """
    return max_rps * SAFETY * 60


class TargetTracking:
    """The control loop: give it each minute's datapoint, do what it decides, tell it when that is done.

    So with each scheduled action when its time comes.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.minimum, self.maximum = policy.minimum, policy.maximum
        self.capacity = policy.minimum
        self._action: str | None = None  # the one whose bounds these are
        self._datapoints: deque[float] = deque(maxlen=LOW_DATAPOINTS)
        self._updating: Decision | None = None
        self._out_cooldown_until = self._in_cooldown_until = -math.inf
        self._before_scale_out = policy.minimum

    def evaluate(self, now: float, invocations_per_instance: float) -> Decision | None:
        """Take a minute's datapoint, visible `now`; the decision that follows, if one does."""
        # Sums of thirds: 81 of them come to 26.99999999999997, which is below 27.
        self._datapoints.append(round(invocations_per_instance, 6))
        datapoints = tuple(self._datapoints)
        if min(datapoints[-HIGH_DATAPOINTS:]) > self.policy.target and len(datapoints) >= HIGH_DATAPOINTS:
            return self._scale_out(now, datapoints[-HIGH_DATAPOINTS:])
        if max(datapoints) < low_threshold(self.policy.target) and len(datapoints) == LOW_DATAPOINTS:
            return self._scale_in(now, datapoints)
        return None

    def run(self, now: float, action: ScheduledAction) -> Decision | None:
        """Keep to a scheduled action's bounds from now on; the decision that follows, if one does."""
        self.minimum, self.maximum, self._action = action.minimum, action.maximum, action.name
        return self._keep_bounds(now)

    def finished(self, now: float) -> Decision | None:
        """The endpoint is InService again; the decision of a scheduled action that had to wait for that, if one had.

        Cooldowns begin when a change has succeeded, not when it was asked for, and only those of the policy's own.
        """
        decision, self._updating = self._updating, None
        if decision and decision.alarm == "high":
            self._out_cooldown_until = now + self.policy.scale_out_cooldown
            self._before_scale_out = decision.before
        elif decision and decision.alarm == "low":
            self._in_cooldown_until = now + self.policy.scale_in_cooldown
        return self._keep_bounds(now)

    def _keep_bounds(self, now: float) -> Decision | None:
        desired = min(max(self.capacity, self.minimum), self.maximum)
        return self._decide(now, desired, scheduled=self._action) if desired != self.capacity else None

    def _scale_out(self, now: float, datapoints: tuple[float, ...]) -> Decision | None:
        # In the cooldown the capacity already added counts: only a larger step from the same beginning adds to it.
        base = min(self._before_scale_out, self.capacity) if now < self._out_cooldown_until else self.capacity
        desired = min(self.maximum, self._proportion(base, datapoints[-1]))
        if desired <= self.capacity:
            return None
        decision = self._decide(now, desired, "high", datapoints)
        if decision:
            self._in_cooldown_until = -math.inf
        return decision

    def _scale_in(self, now: float, datapoints: tuple[float, ...]) -> Decision | None:
        if self.policy.scale_in == "proportional":
            desired = self._proportion(self.capacity, datapoints[-1])
        else:
            desired = self.capacity - 1
        desired = max(self.minimum, desired)
        if desired >= self.capacity or now < self._in_cooldown_until:
            return None
        return self._decide(now, desired, "low", datapoints)

    def _proportion(self, capacity: int, datapoint: float) -> int:
        return math.ceil(round(capacity * datapoint / self.policy.target, 6))

    def _decide(
        self,
        now: float,
        desired: int,
        alarm: Literal["high", "low"] | None = None,
        datapoints: tuple[float, ...] = (),
        scheduled: str | None = None,
    ) -> Decision | None:
        if self._updating:  # SageMaker refuses another change of the endpoint
            return None
        self._updating = Decision(now, self.capacity, desired, alarm, datapoints, scheduled)
        self.capacity = desired
        return self._updating
