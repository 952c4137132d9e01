"""The cheapest configuration that keeps the SLO, as a variable file with the evidence beside each figure."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from capacity import report, search
from capacity.aggregate import demand
from capacity.configuration import Configuration
from capacity.errors import NothingKeepsTheSLO
from capacity.prices import PriceList
from capacity.profile import Profile
from capacity.search import (
    FIGURES,
    IN,
    INSTANCE,
    MAXIMUM,
    MINIMUM,
    OUT,
    PROVISIONED,
    RESERVED,
    TARGET,
    Aggregated,
    Aim,
    Exact,
    Verdict,
)
from capacity.trace import Trace


@dataclass(frozen=True)
class Recommendation:
    """What to configure, what is configured, and by figure what the next value beside it would do.

    beside: that, and the winner, both by the exact simulation, or both by intervals where that would take too long.
    tried: what the search by intervals saw. All else is of the exact simulation.
    """

    aim: Aim
    winner: Verdict
    configured: Verdict
    beside: dict[str, tuple[Verdict, Verdict]]
    tried: list[Verdict]


def recommend(
    trace: Trace,
    configured: Configuration,
    profiles: dict[str, Profile],
    prices: PriceList,
    aim: Aim,
    exact: Exact,
    say: Callable[[str], Any],
) -> Recommendation:
    """Search, verify, and look around. Raises NothingKeepsTheSLO."""
    judge = Aggregated(demand(trace), profiles, prices, aim)
    search.explore(configured, judge, aim)
    kept = [verdict for verdict in judge.tried.values() if verdict.keeps(aim)]
    say(f"tried by intervals: {len(judge.tried):,} configurations, of which {len(kept):,} keep the SLO")
    winner = search.verify(configured, judge, exact, aim, say) if kept else None
    if winner is None:
        raise NothingKeepsTheSLO(_nothing(search.nearest(judge, exact, aim), aim))
    say(f"holds in the exact simulation: {search.described(winner)}")
    winner = search.polish(winner, exact, aim)
    tried, beside = list(judge.tried.values()), {}
    for name, other in search.neighbours(winner, profiles):
        quick = exact.requests < search.EXACT_REQUESTS or search.figures(other) in exact.known
        beside[name] = (exact(other), winner) if quick else (judge(other), judge(winner.configuration))
    # A profile may be of another type than what is configured; then there is nothing to simulate that with.
    before = exact(configured) if configured.endpoint_instance_type in profiles else None
    say(f"recommended: {search.described(winner)}")
    return Recommendation(aim, winner, before, beside, tried)


def _nothing(verdict: Verdict, aim: Aim) -> str:
    now = verdict.configuration
    p99 = f"a p99 of {verdict.p99 * 1000:,.0f} ms" if verdict.p99 < 1e6 else "more than 1 % of the requests failing"
    low, high = getattr(now, MINIMUM), getattr(now, MAXIMUM)
    return (
        f"Nothing keeps a p99 of {aim.slo_seconds * 1000:g} ms with at most {aim.max_throttled:.2%} throttled. Closest "
        f"come {low if low == high else f'{low} to {high}'} {now.endpoint_instance_type} with "
        f"reserved concurrency {now.lambda_reserved_concurrency}: {p99}, {verdict.throttled:.2%} throttled."
    )


def tfvars(made: Recommendation, trace: Trace, profiles: dict[str, Profile], configured: Configuration) -> str:
    """The content of a variable file."""
    winner, aim = made.winner, made.aim
    hours = sorted({f"{hours:,.1f}" for hours in winner.instance_hours})
    blocks = [
        _comment(
            "Written by `python -m capacity recommend`. Give it to `terraform plan` as the last -var-file: those given "
            "win over a file that Terraform finds by itself."
        )
        + _comment(report.demand(trace))
        + "".join(_comment(report.service(profile)) for profile in profiles.values())
        + _comment(f"Aim: p99 {aim.slo_seconds * 1000:g} ms, at most {aim.max_throttled:.2%} throttled.")
        + _comment(
            f"Simulated, request by request: {search.done(winner)}, {winner.cold_starts:,.0f} cold starts, "
            f"{' to '.join(hours)} instance-hours. A range is that of the two scale-in rules: AWS does not say "
            "which is its own, and the SLO holds in both."
        )
        + (_comment(f"As configured before: {search.done(made.configured)}.") if made.configured else "")
    ]
    for name in FIGURES:
        now, was = getattr(winner.configuration, name), getattr(configured, name)
        if name == INSTANCE and now == was and len(profiles) == 1:
            continue
        said = ["Unchanged." if now == was else f"Was {report.figure(was)}.", _evidence(name, made, profiles)]
        blocks.append(_comment(" ".join(said)) + f"{name} = {report.figure(now)}\n")
    return "\n".join(blocks)


def _comment(text: str) -> str:
    # Names of files and sources are the user's: a line break in one must not begin a setting.
    return "".join(f"# {line}\n" for line in textwrap.wrap(" ".join(text.split()), 118))


def _evidence(name: str, made: Recommendation, profiles: dict[str, Profile]) -> str:
    now = made.winner.configuration
    beside = _beside(made, name) if name in made.beside else ""
    if name == INSTANCE:
        others = [one for one in profiles if one != now.endpoint_instance_type]
        return " ".join(_cheapest_of(made, one) for one in others) or "The only one that a profile is of."
    if name == MINIMUM and getattr(now, name) == 1:
        return "The fewest there can be; one instance is no spare where a zone is lost."
    if name == MAXIMUM:
        used = f"This trace uses {made.winner.most_instances} at most"
        spare = "." if made.winner.most_instances == getattr(now, name) else "; the rest is room for growth."
        return f"{used}{spare} {beside}"
    if name == TARGET:
        share = getattr(now, name) / 60 / search.per_second(profiles[now.endpoint_instance_type])
        return f"{share:.0%} of what an instance can answer. {beside}"
    if name in (IN, OUT) and len(search.rules(now)) == 1:
        return "Nothing scales."
    if name == RESERVED and not beside:
        return "No less than is provisioned." if getattr(now, PROVISIONED) else "The least there can be."
    return beside


def _beside(made: Recommendation, name: str) -> str:
    """What the next value would do."""
    (other, winner), aim = made.beside[name], made.aim
    value = report.figure(getattr(other.configuration, name)) + ("" if winner is made.winner else " (by intervals)")
    broken = [f"p99 {other.p99 * 1000:,.0f} ms" if other.p99 < 1e6 else "more than 1 % fail"] * (other.late > aim.late)
    throttled = f"{other.throttled:.2%}" if other.throttled >= 0.0001 else "some"
    broken += [f"{throttled} throttled"] * (other.throttled > aim.max_throttled)
    more = other.cost - winner.cost
    if broken:
        saves = f", for {-more:,.2f} USD a month less" if more < -0.005 else ""
        return f"At {value}: {' and '.join(broken)}{saves}."
    if abs(more) < 0.005:
        return f"At {value} nothing changes under this trace."
    return (
        f"At {value} a month costs {abs(more):,.2f} USD {'more' if more > 0 else 'less, too little to change it for'}."
    )


def _cheapest_of(made: Recommendation, instance_type: str) -> str:
    kept = [
        verdict.cost
        for verdict in made.tried
        if verdict.configuration.endpoint_instance_type == instance_type and verdict.keeps(made.aim)
    ]
    if kept:
        return f"With {instance_type}: from {min(kept):,.2f} USD a month."
    return f"With {instance_type} nothing keeps the SLO."
