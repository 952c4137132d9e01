"""The pages of `measure`, `simulate` and `recommend`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from capacity import page, plots, report
from capacity.configuration import Configuration
from capacity.execution_environments import IDLE_SECONDS
from capacity.page import Chart, Table
from capacity.prices import PriceList
from capacity.profile import Profile
from capacity.recommend import Recommendation
from capacity.search import FIGURES, Exact, Verdict, done, rules
from capacity.simulation import METRIC_DELAY_SECONDS, Outcome
from capacity.system import UPDATE_SECONDS
from capacity.trace import Trace

if TYPE_CHECKING:
    from capacity.load import Step  # which signs requests: no simulation need load botocore for that

UNKNOWN = (
    "How many instances a step in takes away, AWS does not document. Simulated are two rules: to the proportion at "
    "once, and one instance at a time. The areas in the charts lie between the two; where both do the same, there is "
    "only the line.",
    f"How long a change of the number of instances takes: {UPDATE_SECONDS:.0f} s, as seen once. How late a metric's "
    f"datapoint is: {METRIC_DELAY_SECONDS:.0f} s; users see one to three minutes.",
    "From when on an added instance is billed: here from the decision, the dearer reading.",
    f"How long an idle execution environment of the function stays: {IDLE_SECONDS:.0f} s; users see five to fifteen "
    "minutes.",
)

MEASUREMENT_UNKNOWN = (
    "How fast an instance on AWS is, unless it was one that was measured: another processor has other service times.",
    "What the server's machine had to do besides. Load and server on one machine share its processors.",
)


def of_simulation(
    path: Path,
    trace: Trace,
    profile: Profile,
    configuration: Configuration,
    prices: PriceList,
    outcomes: Mapping[str, Outcome],
    slo_seconds: float,
) -> list[Path]:
    """Write the page of a simulation; the files written."""
    rows = report.outcome_rows(dict(outcomes), configuration, prices, slo_seconds)
    one = next(iter(outcomes.values()))  # what is scheduled is so in all of them
    return page.write(
        path,
        f"Capacity under {trace.name}",
        [report.demand(trace), report.service(profile), *report.scheduled(configuration, trace, one)],
        [_timeline(trace, configuration, prices, outcomes, slo_seconds)],
        [Table("What became of it, by scale-in rule", rows), _figures({"configured": configuration})],
        UNKNOWN,
    )


def of_measurement(
    path: Path,
    source: str,
    service_seconds: np.ndarray,
    steps: Sequence[Step],
    summary: Sequence[str],
    slo_seconds: float,
) -> list[Path]:
    """Write the page of a measurement; the files written."""
    draw = partial(plots.measurement, service_seconds=service_seconds, steps=steps, slo_seconds=slo_seconds)
    caption = (
        "Above: each rate tried, from when a request was due until its answer; what is slower than "
        f"{plots.STEEPEST:g} times the SLO, or fails, stands at the upper edge. Below: what a single client waits."
    )
    rows = [["requests/s", "measured", "answered", "otherwise", "p50", "p99", ""]]
    rows += [
        [
            f"{step.rate:.2f}",
            f"{step.seconds:.0f} s",
            f"{step.outcomes['200']:,}",
            ", ".join(f"{count} x {what}" for what, count in sorted(step.outcomes.items()) if what != "200") or "-",
            *(report.milliseconds(step.quantile(share)) for share in (0.5, 0.99)),
            "holds" if step.holds(slo_seconds) else "does not hold",
        ]
        for step in sorted(steps, key=lambda step: step.rate)
    ]
    lead = [f"{source[0].upper()}{source[1:]}, for a p99 of {slo_seconds * 1000:g} ms.", *summary]
    return page.write(
        path,
        "What the server can do",
        lead,
        [Chart("rates", "Latency by rate, and of one client", caption, 7.0, draw)],
        [Table("Rates tried", rows)],
        MEASUREMENT_UNKNOWN,
    )


def of_recommendation(
    path: Path,
    trace: Trace,
    profiles: Mapping[str, Profile],
    prices: PriceList,
    made: Recommendation,
    exact: Exact,
    variables: str,
) -> list[Path]:
    """Write the page of a recommendation, whose variable file says `variables`; the files written."""
    winner, aim = made.winner, made.aim
    now = winner.configuration
    outcomes = {rule: exact.outcome(now, rule) for rule in rules(now)}
    columns = {"recommended": winner} | ({"configured": made.configured} if made.configured else {})
    draw = partial(
        plots.frontier,
        tried=made.tried,
        winner=winner,
        configured=made.configured,
        slo_seconds=aim.slo_seconds,
        max_throttled=aim.max_throttled,
    )
    caption = (
        f"{len(made.tried):,} configurations, each in the dearer and slower of the two scale-in rules, estimated by "
        "intervals; those with a name are simulated request by request. What is slower than "
        f"{plots.STEEPEST:g} times the SLO stands at the upper edge."
    )
    return page.write(
        path,
        f"Recommended under {trace.name}",
        [
            f"{done(winner)[0].upper()}{done(winner)[1:]}.",
            report.demand(trace),
            *map(report.service, profiles.values()),
            f"Aim: for the least money a p99 of {aim.slo_seconds * 1000:g} ms and at most {aim.max_throttled:.2%} "
            "throttled, however AWS scales in.",
        ],
        [
            Chart("frontier", "Cost against the SLO", caption, 4.6, draw),
            _timeline(trace, now, prices, outcomes, aim.slo_seconds),
        ],
        [
            Table("Simulated, the worse of the two rules", _verdict_rows(columns)),
            _figures({name: verdict.configuration for name, verdict in columns.items()}),
        ],
        UNKNOWN,
        ("The variable file, with the evidence for each figure", variables),
    )


def _timeline(
    trace: Trace,
    configuration: Configuration,
    prices: PriceList,
    outcomes: Mapping[str, Outcome],
    slo_seconds: float,
) -> Chart:
    draw = partial(
        plots.timeline,
        trace=trace,
        outcomes=outcomes,
        configuration=configuration,
        prices=prices,
        slo_seconds=slo_seconds,
    )
    caption = "The upper line of an area is the higher of the two scale-in rules, its lower edge the lower."
    return Chart("timeline", "Over the trace", caption if len(outcomes) > 1 else "", 9.5, draw)


def _figures(configurations: Mapping[str, Configuration]) -> Table:
    rows = [
        [name, *(report.figure(getattr(configuration, name)) for configuration in configurations.values())]
        for name in FIGURES
    ]
    return Table("Variables", [["", *configurations], *rows])


def _verdict_rows(verdicts: Mapping[str, Verdict]) -> list[list[str]]:
    def between(values: tuple[float, ...]) -> str:
        return " to ".join(dict.fromkeys(f"{value:,.2f}" for value in sorted(values)))

    return [
        ["", *verdicts],
        ["p99", *(report.milliseconds(one.p99) for one in verdicts.values())],
        ["throttled (429)", *(f"{one.throttled:.2%}" for one in verdicts.values())],
        ["cold starts", *(f"{one.cold_starts:,.0f}" for one in verdicts.values())],
        ["instance-hours", *(between(one.instance_hours) for one in verdicts.values())],
        ["USD a month", *(between(one.usd) for one in verdicts.values())],
    ]
