"""The search for the cheapest configuration that keeps a service level: by intervals first, then event by event."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, get_args

import numpy as np

from capacity import report
from capacity.aggregate import Aggregate, Demand, Estimate
from capacity.bill import MONTH_HOURS, Usage, bill, total, usage
from capacity.configuration import Configuration
from capacity.prices import PriceList
from capacity.profile import Profile
from capacity.simulation import Outcome, simulate
from capacity.system import ACCOUNT_CONCURRENCY, system
from capacity.target_tracking import ScaleIn
from capacity.trace import Trace

# AWS keeps so much of an account's quota for the functions that reserve nothing.
UNRESERVED = 100
MOST_RESERVED = ACCOUNT_CONCURRENCY - UNRESERVED

TARGET_SHARES = np.arange(0.2, 1.01, 0.05)  # of what an instance can answer
COOLDOWNS = (30, 60, 120, 300, 600)
WORTH_IT = 0.001  # of the cost: less is no reason to change a figure
REFINED = 3
# What the exact simulation does in about two minutes; the trace at least once in both scale-in rules.
EXACT_REQUESTS = 60_000_000

MINIMUM, MAXIMUM = "autoscaling_min_capacity", "autoscaling_max_capacity"
TARGET = "autoscaling_target_invocations_per_minute"
IN, OUT = "autoscaling_scale_in_cooldown_seconds", "autoscaling_scale_out_cooldown_seconds"
RESERVED, PROVISIONED = "lambda_reserved_concurrency", "lambda_provisioned_concurrency"
INSTANCE = "endpoint_instance_type"
FIGURES = (INSTANCE, MINIMUM, MAXIMUM, TARGET, IN, OUT, RESERVED, PROVISIONED)


@dataclass(frozen=True)
class Aim:
    """The service level: 99 % of the requests let in are answered within so many seconds, at most a share throttled."""

    slo_seconds: float
    max_throttled: float

    late = 0.01


@dataclass(frozen=True)
class Verdict:
    """What a configuration does and costs: the worse of the two scale-in rules, costs and hours by rule.

    late: share of those let in that were not answered within the SLO; p99: seconds, infinite where more than 1 % fail;
    usd: a month; instance_hours: of the trace.
    """

    configuration: Configuration
    usd: tuple[float, ...]
    instance_hours: tuple[float, ...]
    p99: float
    late: float
    throttled: float
    cold_starts: float
    most_instances: int

    @property
    def cost(self) -> float:
        return max(self.usd)

    def keeps(self, aim: Aim) -> bool:
        return self.late <= aim.late and self.throttled <= aim.max_throttled


Judge = Callable[[Configuration], Verdict]


def rules(configuration: Configuration) -> tuple[ScaleIn, ...]:
    """The scale-in rules that differ for a configuration."""
    both = get_args(ScaleIn)
    return both[:1] if getattr(configuration, MINIMUM) == getattr(configuration, MAXIMUM) else both


@dataclass
class Exact:
    """Judges by simulating the whole trace, event by event.

    requests: how many it has simulated; known: its verdicts.
    """

    trace: Trace
    profiles: dict[str, Profile]
    prices: PriceList
    aim: Aim
    seed: int
    requests: int = 0
    known: dict[tuple, Verdict] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.trace.arrivals)
        # As `simulate` draws them.
        self._services = cache(
            lambda instance_type: self.profiles[instance_type].draw(np.random.default_rng([self.seed, 1]), count)
        )

    def __call__(self, configuration: Configuration) -> Verdict:
        key = figures(configuration)
        if key not in self.known:
            results = [_result_of(self.outcome(configuration, rule), self.aim) for rule in rules(configuration)]
            self.known[key] = _worse(configuration, self.prices, results)
        return self.known[key]

    def outcome(self, configuration: Configuration, rule: ScaleIn) -> Outcome:
        instance_type = configuration.endpoint_instance_type
        self.requests += len(self.trace.arrivals)
        simulated = system(configuration, self.profiles[instance_type], rule)
        return simulate(self.trace, self._services(instance_type), simulated, self.seed)


@dataclass
class Aggregated:
    """Judges by intervals. `tried` are all its verdicts, in order."""

    requests: Demand
    profiles: dict[str, Profile]
    prices: PriceList
    aim: Aim
    tried: dict[tuple, Verdict] = field(default_factory=dict)
    _aggregates: dict[tuple, Aggregate] = field(default_factory=dict)

    def __call__(self, configuration: Configuration) -> Verdict:
        key = figures(configuration)
        if key not in self.tried:
            results = [self._result(configuration, rule) for rule in rules(configuration)]
            self.tried[key] = _worse(configuration, self.prices, results)
        return self.tried[key]

    def _result(self, configuration: Configuration, rule: ScaleIn) -> tuple:
        profile = self.profiles[configuration.endpoint_instance_type]
        simulated = system(configuration, profile, rule)
        key = profile.instance_type, simulated.function.concurrency
        if key not in self._aggregates:
            self._aggregates[key] = Aggregate(self.requests, simulated, profile)
        estimate = self._aggregates[key].estimate(
            simulated.policy, simulated.function.provisioned, self.aim.slo_seconds
        )
        let_in = estimate.requests - estimate.refused
        return (
            _usage(estimate),
            estimate.instance_seconds / 3600,
            estimate.p99,
            estimate.late / max(let_in, 1),
            estimate.refused / estimate.requests,
            estimate.cold_starts,
            max(instances for _, instances in estimate.capacity),
        )


def figures(configuration: Configuration) -> tuple:
    return tuple(getattr(configuration, name) for name in FIGURES)


def _result_of(outcome: Outcome, aim: Aim) -> tuple:
    latency = report.latencies(outcome)
    return (
        usage(outcome),
        outcome.instance_seconds / 3600,
        report.quantile(latency, 0.99),
        int(np.count_nonzero(latency > aim.slo_seconds)) / max(len(latency), 1),
        (len(outcome.status) - len(latency)) / len(outcome.status),
        outcome.cold_starts,
        max(instances for _, instances in outcome.capacity),
    )


def _worse(configuration: Configuration, prices: PriceList, results: list[tuple]) -> Verdict:
    used, hours, p99, late, throttled, cold_starts, most = zip(*results, strict=True)
    usd = tuple(total(bill(configuration, prices, one)) for one in used)
    return Verdict(configuration, usd, hours, max(p99), max(late), max(throttled), max(cold_starts), max(most))


def _usage(estimate: Estimate) -> Usage:
    month = MONTH_HOURS * 3600 / estimate.duration
    return Usage(
        instance_hours=estimate.instance_seconds / 3600 * month,
        invocations=(estimate.requests - estimate.refused) * month,
        provisioned_seconds=estimate.provisioned_seconds * month,
        on_demand_seconds=estimate.on_demand_seconds * month,
    )


def targets(profile: Profile) -> list[int]:
    """Targets to try, in invocations a minute: shares of what an instance can answer, to two digits."""
    rates = [60 * share * per_second(profile) for share in TARGET_SHARES]
    return sorted({max(1, round(rate, 1 - math.floor(math.log10(rate)))) for rate in rates})


def per_second(profile: Profile) -> float:
    """The most that an instance can answer."""
    return profile.workers / float(np.trapezoid(profile.service_seconds, dx=1 / (len(profile.service_seconds) - 1)))


def explore(configured: Configuration, judge: Aggregated, aim: Aim) -> None:
    """Let the judge try what may be the cheapest configuration of each instance type."""
    for profile in judge.profiles.values():
        instance = replace(configured, **{INSTANCE: profile.instance_type})
        fleet = _smallest_fleet(instance, profile, judge, aim)
        if not fleet.keeps(aim):
            continue
        instances = getattr(fleet.configuration, MINIMUM)
        fleet = _fit_function(fleet.configuration, judge, aim)
        steps = [1, *range(2, min(instances, 8) + 1), *(int(8 * 1.3**step) for step in range(1, 40))]
        found = []
        for minimum in sorted({step for step in steps if step < instances} | {instances}):
            for target in targets(profile):
                scaled = {MINIMUM: minimum, MAXIMUM: math.ceil(1.5 * instances), TARGET: target}
                verdict = _reserve(judge(replace(fleet.configuration, **scaled)), judge, aim)
                if verdict.keeps(aim):
                    found.append(verdict)
        found.sort(key=lambda verdict: (verdict.cost, verdict.late))
        for verdict in found[:REFINED]:
            _fit_function(_refine(verdict, instances, judge, aim).configuration, judge, aim)


def _smallest_fleet(configured: Configuration, profile: Profile, judge: Aggregated, aim: Aim) -> Verdict:
    """The fewest instances that keep the SLO without scaling, with the function out of the way; or else the nearest."""
    most = max(2, math.ceil(judge.requests.rates.max() / per_second(profile) / 0.2))
    free = {RESERVED: MOST_RESERVED, PROVISIONED: MOST_RESERVED}

    def fleet(instances: int) -> Verdict:
        return judge(replace(configured, **{MINIMUM: instances, MAXIMUM: instances}, **free))

    return fleet(_least(1, most, lambda instances: fleet(instances).keeps(aim)))


def _fit_function(configuration: Configuration, judge: Judge, aim: Aim) -> Verdict:
    """The cheapest provisioned concurrency, then the least reserved concurrency, that keep the SLO."""
    most = getattr(configuration, RESERVED)
    best = judge(replace(configuration, **{PROVISIONED: 0}))
    provisioned, dearer = 1, 0
    while provisioned <= most and dearer < 3:
        verdict = judge(replace(configuration, **{PROVISIONED: provisioned}))
        if (not verdict.keeps(aim), verdict.cost) < (not best.keeps(aim), best.cost):
            best, dearer = verdict, 0
        elif best.keeps(aim):
            dearer += 1
        provisioned = max(provisioned + 1, int(provisioned * 1.15))
    provisioned = getattr(best.configuration, PROVISIONED)

    def reserving(reserved: int) -> Verdict:
        return judge(replace(configuration, **{RESERVED: reserved, PROVISIONED: min(provisioned, reserved)}))

    return reserving(_least(1, most, lambda reserved: reserving(reserved).keeps(aim)))


def _reserve(verdict: Verdict, judge: Judge, aim: Aim) -> Verdict:
    """As much more reserved concurrency, which costs nothing, as ends the throttling, while the SLO allows it."""
    while verdict.throttled > aim.max_throttled and verdict.late <= aim.late:
        reserved = getattr(verdict.configuration, RESERVED)
        if reserved == MOST_RESERVED:
            break
        more = min(max(reserved + 1, round(1.2 * reserved)), MOST_RESERVED)
        verdict = judge(replace(verdict.configuration, **{RESERVED: more}))
    return verdict


def _least(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The least number for which something holds that goes on holding; `high` where it never does."""
    while low < high:
        middle = (low + high) // 2 if high - low < 2 * low else 2 * low
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low


def _refine(verdict: Verdict, instances: int, judge: Judge, aim: Aim) -> Verdict:
    """Change a maximum or a cooldown where that saves something worth it."""
    maxima = (instances, math.ceil(1.25 * instances), 2 * instances)
    for name, values in ((MAXIMUM, maxima), (IN, COOLDOWNS), (OUT, COOLDOWNS)):
        for value in values:
            changed = {name: value}
            if value < getattr(verdict.configuration, MINIMUM) and name == MAXIMUM:
                continue
            other = judge(replace(verdict.configuration, **changed))
            if other.keeps(aim) and other.cost < verdict.cost * (1 - WORTH_IT):
                verdict = other
    return verdict


def verify(
    configured: Configuration, judge: Aggregated, exact: Exact, aim: Aim, say: Callable[[str], Any]
) -> Verdict | None:
    """The cheapest configuration tried that the exact simulation bears out; None where it bears out none."""

    def order(verdict: Verdict) -> tuple:
        """Of those that cost the same: the one that may grow, that grows first, and that changes fewer cooldowns."""
        now = verdict.configuration
        changed = sum(getattr(now, name) != getattr(configured, name) for name in (IN, OUT))
        fixed = getattr(now, MINIMUM) == getattr(now, MAXIMUM)
        return round(verdict.cost, 2), fixed, changed, getattr(now, TARGET), figures(now)

    candidates = sorted((verdict for verdict in judge.tried.values() if verdict.keeps(aim)), key=order)
    hides = 1.0  # how many times as many are late as the intervals tell
    while candidates and exact.requests < EXACT_REQUESTS:
        likely = [candidate for candidate in candidates if candidate.late * hides <= aim.late]
        # Where none is likely any more: the one that is farthest from the SLO.
        candidate = likely[0] if likely else min(candidates, key=lambda verdict: (verdict.late, verdict.throttled))
        candidates.remove(candidate)
        verdict = _reserve(exact(candidate.configuration), exact, aim)
        if verdict.keeps(aim):
            return verdict
        say(f"refused by the exact simulation: {described(verdict)}")
        if verdict.late > aim.late:
            hides = max(hides, verdict.late / max(candidate.late, 1e-6))
    return None


def polish(winner: Verdict, exact: Exact, aim: Aim) -> Verdict:
    """Step to neighbours while the exact simulation finds one that is cheaper, or reserves less at no more cost."""
    moved = True
    while moved and exact.requests < EXACT_REQUESTS:
        moved = False
        for name, other in neighbours(winner, exact.profiles):
            verdict = exact(other)
            free = 0.005 if name == RESERVED else -WORTH_IT * winner.cost
            if verdict.keeps(aim) and verdict.cost <= winner.cost + free:
                winner, moved = verdict, True
                break
            if exact.requests > EXACT_REQUESTS:
                break
    return winner


def neighbours(verdict: Verdict, profiles: dict[str, Profile]) -> Iterator[tuple[str, Configuration]]:
    """A figure's name and the configuration with the next one in its place that may be cheaper."""
    now = verdict.configuration
    wider = [target for target in targets(profiles[now.endpoint_instance_type]) if target > getattr(now, TARGET)]
    provisioned, reserved = getattr(now, PROVISIONED), getattr(now, RESERVED)
    if getattr(now, MINIMUM) > 1:
        yield MINIMUM, replace(now, **{MINIMUM: getattr(now, MINIMUM) - 1})
    if wider:
        yield TARGET, replace(now, **{TARGET: wider[0]})
    if reserved > max(provisioned, 1):
        yield RESERVED, replace(now, **{RESERVED: reserved - 1})
    if provisioned or reserved:
        yield PROVISIONED, replace(now, **{PROVISIONED: provisioned - 1 if provisioned else 1})
    if getattr(now, MAXIMUM) > getattr(now, MINIMUM):
        yield MAXIMUM, replace(now, **{MAXIMUM: getattr(now, MAXIMUM) - 1})
        for name in (IN, OUT):
            shorter = [cooldown for cooldown in COOLDOWNS if cooldown < getattr(now, name)]
            longer = [cooldown for cooldown in COOLDOWNS if cooldown > getattr(now, name)]
            # A shorter way in and a longer way out are what saves.
            cheaper = shorter[-1:] if name == IN else longer[:1]
            for value in cheaper or longer[:1] or shorter[-1:]:
                yield name, replace(now, **{name: value})


def described(verdict: Verdict) -> str:
    """A line of what a configuration is, does and costs."""
    now = verdict.configuration
    return (
        f"{now.endpoint_instance_type}, {getattr(now, MINIMUM)} to {getattr(now, MAXIMUM)} instances, target "
        f"{getattr(now, TARGET):g}, cooldowns {getattr(now, IN):g} s in and {getattr(now, OUT):g} s out, reserved "
        f"{getattr(now, RESERVED)}, provisioned {getattr(now, PROVISIONED)}: {done(verdict)}"
    )


def done(verdict: Verdict) -> str:
    """What a configuration does and costs, in short."""
    p99 = f"p99 {verdict.p99 * 1000:,.0f} ms" if math.isfinite(verdict.p99) else "more than 1 % fail"
    low, high = min(verdict.usd), max(verdict.usd)
    usd = f"{low:,.2f}" if f"{low:,.2f}" == f"{high:,.2f}" else f"{low:,.2f} to {high:,.2f}"
    return f"{p99}, throttled {verdict.throttled:.2%}, {usd} USD a month"


def nearest(judge: Aggregated, exact: Exact, aim: Aim) -> Verdict:
    """What comes closest to the SLO where nothing keeps it: by the exact simulation, if it saw anything."""

    def distance(verdict: Verdict) -> tuple:
        beyond = max(verdict.p99 / aim.slo_seconds, verdict.throttled / max(aim.max_throttled, 1e-9))
        return beyond, verdict.cost, figures(verdict.configuration)

    return min(exact.known.values() or judge.tried.values(), key=distance)
