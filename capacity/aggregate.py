"""The simulation by intervals: the control loop as it is, and between its steps queueing theory in place of events.

Its time hangs on how long the trace is, not on how many requests are in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from capacity.profile import Profile
from capacity.simulation import METRIC_DELAY_SECONDS, System
from capacity.stationary import Stationary
from capacity.target_tracking import Decision, Policy, TargetTracking
from capacity.trace import MINUTE, Trace

INTERVAL = 10.0
PER_MINUTE = int(MINUTE / INTERVAL)
# Chi-squared of a minute's six intervals, which chance alone exceeds once in a hundred minutes.
BY_CHANCE = 15.1
STRETCH = 60 * PER_MINUTE  # intervals whose states are looked up together
RARE = 1e-7  # on-demand environments wanted less often than this, a second, are not looked at


@dataclass(frozen=True)
class Demand:
    """Requests by interval; shape (intervals,)."""

    name: str
    counts: np.ndarray

    @property
    def duration(self) -> float:
        return len(self.counts) * INTERVAL

    @property
    def rates(self) -> np.ndarray:
        """Requests a second: a minute's, but those of its intervals where they differ by more than chance."""
        by_minute = self.counts.reshape(-1, PER_MINUTE)
        mean = by_minute.mean(1, keepdims=True)
        deviation = ((by_minute - mean) ** 2).sum(1, keepdims=True) / np.maximum(mean, 1e-9)
        return (np.where(deviation > BY_CHANCE, by_minute, mean) / INTERVAL).ravel()


@dataclass(frozen=True)
class Estimate:
    """What becomes of a trace, as the exact simulation's Outcome says it; numbers of requests are expected ones.

    late: answered after the SLO, timed out or refused by a full queue. p50, p99: seconds, of those let in; a request
    that fails is later than any.
    """

    duration: float
    requests: int
    refused: float
    late: float
    p50: float
    p99: float
    cold_starts: float
    spilled: float
    decisions: list[Decision]
    capacity: list[tuple[float, int]]
    instance_seconds: float
    provisioned_seconds: float
    on_demand_seconds: float


def demand(trace: Trace) -> Demand:
    """A trace's requests by interval."""
    intervals = round(trace.duration / INTERVAL)
    numbers = np.minimum((trace.arrivals // INTERVAL).astype(np.int64), intervals - 1)
    return Demand(trace.name, np.bincount(numbers, minlength=intervals))


class Aggregate:
    """A demand, a function and an endpoint, to be run under any number of policies and provisioned environments."""

    def __init__(self, requests: Demand, system: System, profile: Profile) -> None:
        self.demand = requests
        self.function, self.variant = system.function, system.variant
        self._rates = requests.rates
        positive = self._rates[self._rates > 0]
        self.stationary = Stationary(self.function, self.variant, profile, positive.min(), positive.max())
        self._numbers = self.stationary.number(self._rates)
        self._minutes: dict[tuple[int, int], list[float]] = {}

    def estimate(self, policy: Policy, provisioned: int, slo_seconds: float) -> Estimate:
        """Let the demand through, under a policy and with so many provisioned execution environments."""
        capacity, decisions, instance_seconds = self._scale(policy)
        counts, count = self.demand.counts, len(self.demand.counts)
        steps = [min(round(time / INTERVAL), count) for time, _ in capacity]
        active = np.repeat([instances for _, instances in capacity], np.diff([*steps, count]))
        # The states the demand passes through; each is worth its requests.
        pairs, which = np.unique(active * len(self.stationary.rates) + self._numbers, return_inverse=True)
        instances, numbers = np.divmod(pairs, len(self.stationary.rates))
        refused, failed, sojourn = np.empty((3, len(pairs)))
        found = np.empty((len(pairs), self.variant.workers + self.variant.queue_length))
        for some in np.unique(instances):
            here = instances == some
            states = self.stationary.at(int(some), numbers[here])
            refused[here], failed[here] = states.refused[numbers[here]], states.failed[numbers[here]]
            sojourn[here], found[here] = states.sojourn[numbers[here]], states.found[numbers[here]]
        spilled, cold = self._beyond_provisioned(provisioned, which, refused, sojourn)
        requests = np.bincount(which, counts, len(pairs))
        let_in = requests * (1 - refused)
        # A start of an environment makes a request late by so much.
        cold_share = np.minimum(np.bincount(which, cold, len(pairs)) / np.maximum(let_in, 1e-9), 1)
        answered = let_in * (1 - failed)
        warm, started = (answered * (1 - cold_share)) @ found, (answered * cold_share) @ found
        latencies, later = self.stationary.latencies, self.stationary.later
        function = self.function

        def over(seconds: np.ndarray) -> np.ndarray:
            """How many are later than this."""
            total = (let_in * failed).sum() + np.interp(seconds, latencies, warm @ later, left=warm.sum())
            return total + np.interp(seconds - function.cold_start, latencies, started @ later, left=started.sum())

        thresholds = np.unique(np.concatenate([latencies, latencies + function.cold_start]))
        thresholds = np.append(thresholds[thresholds < function.timeout], function.timeout)
        remaining = over(thresholds)
        p50, p99 = (
            float(thresholds[min(np.searchsorted(-remaining, -share * let_in.sum()), len(thresholds) - 1)])
            for share in (0.5, 0.01)
        )
        run = let_in * (sojourn + cold_share * function.cold_start)
        on_demand = np.divide(spilled, let_in, out=np.zeros_like(let_in), where=let_in > 0).clip(0, 1)
        return Estimate(
            duration=self.demand.duration,
            requests=int(counts.sum()),
            refused=float((requests * refused).sum()),
            late=float(over(np.array(min(slo_seconds, function.timeout)))),
            p50=p50,
            p99=p99,
            cold_starts=float(cold.sum()),
            spilled=float(spilled.sum()),
            decisions=decisions,
            capacity=capacity,
            instance_seconds=instance_seconds,
            provisioned_seconds=float((run * (1 - on_demand)).sum()),
            on_demand_seconds=float((run * on_demand).sum()),
        )

    def _scale(self, policy: Policy) -> tuple[list[tuple[float, int]], list[Decision], float]:
        """Instances in service, decisions, and seconds of instances paid for."""
        scaling, duration, update = TargetTracking(policy), self.demand.duration, self.variant.update_seconds
        active = policy.minimum
        capacity, decisions = [(0.0, active)], []
        # An instance is paid for from the decision to add it until the change that takes it away is done.
        billed, in_service = duration * active, None
        before = active  # at the beginning of the minute
        for minute in range(round(duration / MINUTE)):
            now = MINUTE * (minute + 1) + METRIC_DELAY_SECONDS
            if now > max(duration, MINUTE + METRIC_DELAY_SECONDS):
                break
            if in_service is not None and in_service < now:
                scaling.finished(in_service)
                if scaling.capacity > active:
                    active = scaling.capacity
                    capacity.append((in_service, active))
                in_service = None
            decision = scaling.evaluate(now, self._invocations(minute, before, capacity))
            if decision:
                decisions.append(decision)
                in_service = now + update
                added = decision.after - decision.before
                billed += added * max(0.0, duration - (now if added > 0 else in_service))
                if added < 0:
                    active = decision.after
                    capacity.append((now, active))
            before = _at(capacity, MINUTE * (minute + 1))
        if in_service is not None and in_service < duration and scaling.capacity > active:
            capacity.append((in_service, scaling.capacity))
        return capacity, decisions, billed

    def _invocations(self, minute: int, before: int, capacity: list[tuple[float, int]]) -> float:
        """A minute's invocations per instance."""
        begin, end = minute * MINUTE, (minute + 1) * MINUTE
        changes = [(time, instances) for time, instances in capacity[-3:] if begin < time < end]
        if not changes:
            return self._stretch(before, minute)[minute % 60]
        total, instances, since = 0.0, before, begin
        for time, after in [*changes, (end, 0)]:
            each = self._stretch(instances, minute)[minute % 60]
            total, instances, since = total + each * (time - since) / MINUTE, after, time
        return total

    def _stretch(self, instances: int, minute: int) -> list[float]:
        """An hour's invocations per instance by minute, were it run with so many."""
        key = instances, minute // 60
        if key not in self._minutes:
            part = slice(key[1] * STRETCH, (key[1] + 1) * STRETCH)
            numbers = self._numbers[part]
            states = self.stationary.at(instances, numbers)
            arrive = self.demand.counts[part] * (1 - states.refused[numbers]) / instances
            self._minutes[key] = arrive.reshape(-1, PER_MINUTE).sum(1).tolist()
        return self._minutes[key]

    def _beyond_provisioned(
        self, provisioned: int, which: np.ndarray, refused: np.ndarray, sojourn: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Requests that find the provisioned environments busy, by state, and cold starts, by interval.

        Environments are wanted in an order: the next one when all before it are busy (Erlang B). One that was not
        wanted for a while is gone, and its next request starts it anew.
        """
        function, states = self.function, len(refused)
        counts = self.demand.counts
        rates = np.zeros(states)
        rates[which] = self.stationary.rates[self._numbers]
        load = rates * sojourn
        requests = np.bincount(which, counts, states)
        blocked, busy = np.ones(states), 0
        spilled, cold = np.zeros(states), np.zeros(len(counts))
        idle = round(function.idle / INTERVAL)
        while busy < function.concurrency:
            if busy == provisioned:
                spilled = requests * blocked
            wanted = rates * blocked
            following = load * blocked / (busy + 1 + load * blocked)
            if busy >= provisioned:
                if wanted.max() < RARE:
                    break
                expected = (counts * blocked[which] * (counts > 0)) if busy else counts.astype(float)
                total = np.concatenate([[0.0], np.cumsum(expected)])
                since = np.maximum(np.arange(len(counts)) - idle, 0)
                unused = np.exp(-(total[:-1] - total[since]))
                cold += unused * -np.expm1(-expected)
            blocked, busy = following, busy + 1
        else:
            spilled = np.maximum(spilled - requests * blocked, 0)
        return spilled, cold


def _at(capacity: list[tuple[float, int]], time: float) -> int:
    return next(instances for since, instances in reversed(capacity) if since <= time)
