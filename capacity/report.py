"""What the commands print."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime

import numpy as np

from capacity.bill import MONTH_HOURS, Usage, bill, total, usage
from capacity.configuration import Configuration
from capacity.prices import STALE_DAYS, PriceList
from capacity.profile import FUNCTION, Profile
from capacity.schedule import Change
from capacity.simulation import FAILED, REFUSED, Outcome
from capacity.target_tracking import Decision
from capacity.trace import MINUTE, Trace

# The figures of the write-up's cost section, in US dollars an hour.
CLAIMED_NOTEBOOK, CLAIMED_TRAINER = 0.05, 0.461


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def demand(trace: Trace) -> str:
    """A line about a trace."""
    minutes = np.bincount((trace.arrivals // MINUTE).astype(np.int64))
    return (
        f"{trace.name}: {len(trace.arrivals):,} requests in {trace.duration / 3600:,.1f} h, "
        f"{len(trace.arrivals) / trace.duration:.2f}/s on average, {minutes.max() / MINUTE:.2f}/s in the busiest minute"
    )


def service(profile: Profile) -> str:
    """A line about a profile."""
    median, last = np.quantile(profile.service_seconds, [0.5, 1.0])
    known_from = ", ".join(filter(None, (profile.source, profile.date, profile.machine)))
    slower = f" under load, {profile.slowdown:g} times as long as alone" if profile.slowdown > 1 else ""
    workers = f"{profile.workers} workers" if profile.workers > 1 else "one worker"
    fetch, start = (
        f"{getattr(profile, name) * 1000:.0f} ms more{' (assumed)' if name in profile.assumed else ''}"
        for name in FUNCTION
    )
    return (
        f"{profile.instance_type}: {workers}, {median * 1000:.0f} ms a request (at most {last * 1000:.0f}){slower}, in "
        f"the function {fetch}, at a cold start {start}; {known_from}"
    )


def scheduled(configuration: Configuration, trace: Trace, outcome: Outcome) -> list[str]:
    """A line about the scheduled actions, where there are any: how often each runs, from which moment on."""
    if not configuration.autoscaling_scheduled_actions:
        return []
    times = Counter(change.action.name for change in outcome.changes)
    often = {0: "never", 1: "once"}
    ran = ", ".join(
        f"{action.name} {often.get(times[action.name], f'{times[action.name]:,} times')}"
        for action in configuration.autoscaling_scheduled_actions
    )
    begins = datetime.fromtimestamp(trace.begins, UTC)
    _, fewest, most = outcome.bounds[0]
    return [
        f"scheduled: {ran}; the trace begins on {begins:%A %Y-%m-%d %H:%M} UTC, between {fewest} and {most} instances"
    ]


def outcomes(by_rule: dict[str, Outcome], configuration: Configuration, prices: PriceList, slo_seconds: float) -> str:
    """What became of the requests and what a month of it costs; a column for each scale-in rule."""
    return table(outcome_rows(by_rule, configuration, prices, slo_seconds))


def outcome_rows(
    by_rule: dict[str, Outcome], configuration: Configuration, prices: PriceList, slo_seconds: float
) -> list[list[str]]:
    """The same, as rows."""
    columns = [_column(outcome, slo_seconds) for outcome in by_rule.values()]
    rows = [["scale-in", *by_rule]]
    rows += [[name, *(column[name] for column in columns)] for name in columns[0]]
    bills = [bill(configuration, prices, usage(outcome)) for outcome in by_rule.values()]
    rows.append(["USD a month", *[""] * len(bills)])
    rows += [[f"  {lines[0].item}", *(f"{line.usd:,.2f}" for line in lines)] for lines in zip(*bills, strict=True)]
    rows.append(["  total", *(f"{total(lines):,.2f}" for lines in bills)])
    return rows


def figure(value: object) -> str:
    """A variable's value as Terraform writes it."""
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)


def _column(outcome: Outcome, slo_seconds: float) -> dict[str, str]:
    requests = len(outcome.status)
    latency = latencies(outcome)

    def share(count: int) -> str:
        return f"{count:,} ({count / requests:.2%})"

    return {
        "p50": milliseconds(quantile(latency, 0.5)),
        "p99": milliseconds(quantile(latency, 0.99)),
        f"over the SLO ({slo_seconds * 1000:g} ms)": share(int((outcome.latency > slo_seconds).sum())),
        "throttled (429)": share(int((outcome.status == REFUSED).sum())),
        "failed (timeout, 503)": share(int((outcome.status == FAILED).sum())),
        **{name: f"{count:,} times" for name, count in _again(outcome).items()},
        "beyond provisioned": share(outcome.spilled),
        "cold starts": share(outcome.cold_starts),
        "scaling decisions": f"{len(outcome.decisions):,}",
        "most instances": f"{max(count for _, count in outcome.capacity)}",
        "instance-hours": f"{outcome.instance_seconds / 3600:,.1f}",
    }


def latencies(outcome: Outcome) -> np.ndarray:
    """Seconds to the answer of each request that was not throttled, infinite where it failed; shape (let in,)."""
    return np.where(outcome.status == FAILED, np.inf, outcome.latency)[outcome.status != REFUSED]


def quantile(latency: np.ndarray, share: float) -> float:
    """The latency that a share of them do not exceed: p99 is within the SLO where at most 1 % are not."""
    return float(np.quantile(latency, share, method="inverted_cdf")) if len(latency) else np.inf


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms" if np.isfinite(seconds) else "fails"


def _again(outcome: Outcome) -> dict[str, int]:
    """What Lambda tried again of asynchronous events; what it gave up went to the dead-letter queue."""
    if not outcome.asynchronous:
        return {}
    return {"tried again after a throttle": outcome.retried, "run again after an error": outcome.run_again}


def explanation(decisions: Sequence[Decision], changes: Sequence[Change]) -> str:
    """Each scaling decision with the datapoints or the scheduled action that caused it, and each scheduled action."""
    lines = [(change.time, _explained_change(change)) for change in changes]
    lines += [(decision.time, _explained(decision)) for decision in decisions]
    if not lines:
        return "no scaling decision"
    return "\n".join(f"{_clock(time)}  {line}" for time, line in sorted(lines, key=lambda line: line[0]))


def _explained_change(change: Change) -> str:
    action = change.action
    return f"scheduled action {action.name}: between {action.minimum} and {action.maximum} instances from now on"


def _explained(decision: Decision) -> str:
    step = f"{decision.before} to {decision.after}"
    if decision.scheduled is not None:
        return f"{step}  by scheduled action {decision.scheduled}"
    datapoints = " ".join(f"{datapoint:g}" for datapoint in decision.datapoints)
    return f"{step}  alarm {decision.alarm}, invocations per instance: {datapoints}"


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60:3d}:{minutes % 60:02d}:{second:02d}"


def cost(configuration: Configuration, reference: Configuration, prices: PriceList) -> str:
    """A month without a request, at the fewest and the most instances, beside the reference configuration's."""
    shown = {"configured": configuration} | ({} if configuration == reference else {"reference": reference})
    columns: dict[str, dict[str, float]] = {}
    for name, one in shown.items():
        for instances in (one.autoscaling_min_capacity, one.autoscaling_max_capacity):
            lines = bill(one, prices, Usage(instance_hours=instances * MONTH_HOURS))
            columns[f"{name}, {instances}"] = {line.item: line.usd for line in lines}
    items = list(dict.fromkeys(item for usd in columns.values() for item in usd))
    rows = [["USD a month, without a request, by instances", *columns]]
    rows += [
        [f"  {item}", *(f"{usd[item]:,.2f}" if item in usd else "-" for usd in columns.values())] for item in items
    ]
    rows.append(["  total", *(f"{sum(usd.values()):,.2f}" for usd in columns.values())])
    return table(rows)


def unscheduled(configuration: Configuration) -> list[str]:
    """What a bill by the number of instances leaves out, a line; none where nothing is scheduled."""
    names = ", ".join(action.name for action in configuration.autoscaling_scheduled_actions)
    return [f"not in this table: the scheduled actions {names}; `simulate` counts their instances"] if names else []


def training(configuration: Configuration, prices: PriceList) -> list[str]:
    """What is billed while it runs only, a line each."""
    trainer, job = configuration.trainer_instance_type, configuration.training_instance_type
    ec2 = prices.of(f"ec2 {trainer}", configuration.place("trainer_instance_type")).usd
    sagemaker = prices.of(f"training {job}", configuration.place("training_instance_type")).usd
    most = configuration.trainer_time_cap_seconds / 3600 * ec2
    return [
        f"training: {sagemaker:g} USD/h as a SageMaker job ({job}); {ec2:g} USD/h on the EC2 box ({trainer}), at most "
        f"{most:.2f} USD by its time cap"
    ]


def claims(reference: Configuration, prices: PriceList) -> list[str]:
    """The write-up's two prices beside today's, a line each."""
    notebook = prices.of(f"notebook {reference.notebook_instance_type}", reference.place("notebook_instance_type")).usd
    box = reference.trainer_instance_type
    ec2 = prices.of(f"ec2 {box}", reference.place("trainer_instance_type")).usd
    return [
        f"the write-up's notebook: claimed {CLAIMED_NOTEBOOK:g} USD/h, price {notebook:g}",
        f"the write-up's EC2 box: claimed {CLAIMED_TRAINER:g} USD/h, price {ec2:g}: the claim is "
        f"{CLAIMED_TRAINER / ec2 - 1:.0%} too high, being SageMaker's price of the same machine (ml.{box})",
    ]


def staleness(prices: PriceList, region: str, today: date) -> list[str]:
    """What a reader must know of the prices, a line each."""
    stale = [f"{price.item} ({price.read:%Y-%m})" for price in prices.stale(today)]
    lines = [f"stale prices, read more than {STALE_DAYS} days ago: {', '.join(stale)}"] if stale else []
    if region != prices.region:
        lines.append(f"prices are those of {prices.region}, the stack is in {region}")
    return lines
