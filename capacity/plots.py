"""The pictures of a measurement, a simulation and a search; each draws into a figure as wide as it is given."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from capacity.bill import MONTH_HOURS, bill, usage
from capacity.configuration import Configuration
from capacity.prices import PriceList
from capacity.search import Verdict
from capacity.simulation import ANSWERED, FAILED, REFUSED, Outcome
from capacity.trace import MINUTE, Trace

if TYPE_CHECKING:
    from capacity.load import Step  # which signs requests: no simulation need load botocore for that

# A page gives these its own colours, in light and dark.
INK, SOFT, LINE, BLUE, RED = "#1d2024", "#5b626b", "#dcdfe3", "#1f63b5", "#b3361b"

POINTS = 360  # of a line: what a screen shows
STEEPEST = 3.0  # times the SLO: what is slower stands at the edge of the frontier's picture


@dataclass(frozen=True)
class Series:
    """An outcome by period; shape (periods,). Latencies in milliseconds, NaN where nothing was answered."""

    p50: np.ndarray
    p99: np.ndarray
    throttled: np.ndarray
    failed: np.ndarray
    usd_an_hour: np.ndarray


def period(trace: Trace) -> float:
    """Seconds of a point: whole minutes."""
    return MINUTE * max(1, math.ceil(trace.duration / MINUTE / POINTS))


def series(trace: Trace, outcome: Outcome, configuration: Configuration, prices: PriceList) -> Series:
    """An outcome's course. The function's cost goes by its requests, what costs always by the hour."""
    step = period(trace)
    count = math.ceil(trace.duration / step)
    which = np.minimum((trace.arrivals // step).astype(np.int64), count - 1)
    requests = np.bincount(which, minlength=count)
    with np.errstate(invalid="ignore", divide="ignore"):
        throttled, failed = (
            100 * np.bincount(which[outcome.status == status], minlength=count) / requests
            for status in (REFUSED, FAILED)
        )
    answered = outcome.status == ANSWERED
    latency, place = outcome.latency[answered], which[answered]
    order = np.lexsort((latency, place))
    ends = np.cumsum(np.bincount(place, minlength=count))
    numbers = np.diff(ends, prepend=0)
    latency = np.append(latency[order] * 1000, np.nan)

    def percentile(share: float) -> np.ndarray:
        rank = ends - numbers + np.floor(share * np.maximum(numbers - 1, 0)).astype(np.int64)
        return np.where(numbers > 0, latency[np.minimum(rank, len(latency) - 1)], np.nan)

    hosting, *others = bill(configuration, prices, usage(outcome))
    calls = sum(line.usd for line in others if line.item in ("lambda requests", "lambda on demand"))
    calls += sum(line.usd for line in others if line.item == "lambda provisioned, running")
    always = sum(line.usd for line in others) - calls
    moments = (np.arange(count) + 0.5) * step
    paid = _at(outcome.billed, moments) * (hosting.usd / max(hosting.quantity, 1e-9))
    by_request = calls / MONTH_HOURS * requests / max(requests.mean(), 1e-9)
    return Series(percentile(0.5), percentile(0.99), throttled, failed, paid + by_request + always / MONTH_HOURS)


def timeline(
    figure: Figure,
    trace: Trace,
    outcomes: Mapping[str, Outcome],
    configuration: Configuration,
    prices: PriceList,
    slo_seconds: float,
) -> None:
    """Demand, capacity, latency, losses and cost over the trace; between the two scale-in rules an area."""
    axes = figure.subplots(5, 1, sharex=True)
    step = period(trace)
    unit, length = ("days", 86_400) if trace.duration > 3 * 86_400 else ("hours", 3600)
    edges = np.arange(math.ceil(trace.duration / step) + 1) * step
    moments = (edges[:-1] + step / 2) / length
    courses = [series(trace, outcome, configuration, prices) for outcome in outcomes.values()]
    rate = np.bincount(np.minimum(trace.arrivals // step, len(moments) - 1).astype(np.int64), minlength=len(moments))
    axes[0].plot(moments, rate / step, color=BLUE)
    _named(axes[0], "Demand", "requests/s")
    counts = [_at(outcome.capacity, edges[:-1] + step / 2) for outcome in outcomes.values()]
    _between(axes[1], moments, counts, BLUE, "in service", step="mid")
    bounds = next(iter(outcomes.values())).bounds
    times = [time / length for time, _, _ in bounds] + [trace.duration / length]
    for bound in zip(*(instances for _, *instances in [*bounds, bounds[-1]]), strict=True):
        axes[1].step(times, bound, where="post", color=SOFT, ls=":", lw=1)
    _named(axes[1], "Capacity (dotted: minimum and maximum)", "instances")
    axes[1].yaxis.set_major_locator(MaxNLocator(4, integer=True))
    _between(axes[2], moments, [course.p99 for course in courses], BLUE, "p99")
    axes[2].plot(moments, courses[0].p50, color=SOFT, lw=1, label="p50")
    axes[2].axhline(slo_seconds * 1000, color=RED, ls="--", lw=1, label="SLO")
    _named(axes[2], f"Latency of the answers, each point {_minutes(step)}", "ms")
    _between(axes[3], moments, [course.throttled for course in courses], RED, "throttled (429)")
    _between(axes[3], moments, [course.failed for course in courses], SOFT, "failed (timeout, 503)")
    _named(axes[3], "Not answered", "% of requests")
    _between(axes[4], moments, [course.usd_an_hour for course in courses], BLUE, "all items")
    _named(axes[4], "Cost", "USD an hour")
    for one in (axes[2], axes[3]):
        _legend(figure, one)
    axes[4].set_xlabel(f"{unit} since the trace's beginning")
    axes[4].set_xlim(0, trace.duration / length)


def frontier(
    figure: Figure,
    tried: Sequence[Verdict],
    winner: Verdict,
    configured: Verdict | None,
    slo_seconds: float,
    max_throttled: float,
) -> None:
    """What each configuration tried costs and how slow it is; the line is the least latency for the money."""
    axes = figure.subplots()
    dearest = 1.15 * max(winner.cost, configured.cost if configured else 0, *_cheapest(tried, 0.5))
    shown = [verdict for verdict in tried if verdict.cost <= dearest]
    highest = STEEPEST * slo_seconds * 1000

    def milliseconds(verdict: Verdict) -> float:
        return min(verdict.p99 * 1000, highest)

    for few in (False, True):
        some = [verdict for verdict in shown if (verdict.throttled <= max_throttled) == few]
        axes.scatter(
            [verdict.cost for verdict in some],
            [milliseconds(verdict) for verdict in some],
            s=14,
            facecolors=BLUE if few else "none",
            edgecolors=BLUE if few else SOFT,
            linewidths=0.8,
            alpha=0.55 if few else 1,
            label="tried" if few else "tried, throttles too much",
        )
    best, line = math.inf, []
    for verdict in sorted(shown, key=lambda verdict: (verdict.cost, verdict.p99)):
        if verdict.throttled <= max_throttled and milliseconds(verdict) < best:
            best = milliseconds(verdict)
            line.append((verdict.cost, best))
    axes.step(*zip(*line, strict=True), where="post", color=BLUE, lw=1.5, label="frontier") if line else None
    axes.axhline(slo_seconds * 1000, color=RED, ls="--", lw=1, label="SLO")
    axes.plot(winner.cost, milliseconds(winner), "*", color=RED, ms=13, label="recommended", zorder=5)
    if configured:
        label = "configured"
        if configured.throttled > max_throttled:  # else it would look like the better one
            label += f", throttles {configured.throttled:.1%}"
        axes.plot(configured.cost, milliseconds(configured), "D", color=INK, ms=6, label=label, zorder=5)
    _named(axes, "", "p99, ms")
    axes.set_ylim(0, 1.04 * max([highest * (1 / STEEPEST) * 1.2, *map(milliseconds, shown)]))
    axes.set_xlabel("USD a month, in the dearer scale-in rule")
    axes.legend(frameon=False, ncols=2 if _is_narrow(figure) else 3, loc="upper center", bbox_to_anchor=(0.5, -0.16))


def measurement(figure: Figure, service_seconds: np.ndarray, steps: Sequence[Step], slo_seconds: float) -> None:
    """Latencies by the rate they were measured at; and the share of one client's answers within a time."""
    above, below = figure.subplots(2, 1)
    highest = STEEPEST * slo_seconds * 1000
    steps = sorted(steps, key=lambda step: step.rate)
    rates = [step.rate for step in steps]
    for share, name, colour in ((0.99, "p99", BLUE), (0.5, "p50", SOFT)):
        latencies = [min(step.quantile(share) * 1000, highest) for step in steps]
        above.plot(rates, latencies, color=colour, marker="o", ms=4, label=name)
        if share == 0.99:
            failed = [
                (rate, y) for rate, y, step in zip(rates, latencies, steps, strict=True) if not step.holds(slo_seconds)
            ]
            above.plot(*zip(*failed, strict=True), "X", color=RED, ms=8, label="does not hold") if failed else None
    above.axhline(slo_seconds * 1000, color=RED, ls="--", lw=1, label="SLO")
    _named(above, "Latency by rate", "ms")
    above.set_xlim(left=0)
    above.set_ylim(0, 1.04 * max([slo_seconds * 1200, *above.get_ylim()]))
    above.set_xlabel("requests/s")
    _legend(figure, above)
    milliseconds = np.sort(service_seconds) * 1000
    below.plot(milliseconds, 100 * np.arange(1, len(milliseconds) + 1) / len(milliseconds), color=BLUE)
    _named(below, "One client, which has the server to itself", "% answered within")
    below.set_xlim(left=0)
    below.set_xlabel("ms")


def _legend(figure: Figure, axes: Axes) -> None:
    """Beside the title; where that leaves no room, on a line of its own below it."""
    narrow = _is_narrow(figure)
    if narrow:
        axes.set_title(axes.get_title(loc="left"), loc="left", fontsize=10, color=INK, pad=19)
    place = (
        {"loc": "lower left", "bbox_to_anchor": (0, 1)} if narrow else {"loc": "lower right", "bbox_to_anchor": (1, 1)}
    )
    axes.legend(frameon=False, ncols=4, handlelength=1.4, borderaxespad=0.2, columnspacing=1.4, **place)


def _is_narrow(figure: Figure) -> bool:
    return figure.get_figwidth() < 6


def _cheapest(tried: Sequence[Verdict], share: float) -> list[float]:
    """The cost that a share of the configurations tried stay below, in a list; an empty one where none was tried."""
    costs = sorted(verdict.cost for verdict in tried)
    return costs[int(share * (len(costs) - 1)) :][:1]


def _at(steps: Sequence[tuple[float, int]], moments: np.ndarray) -> np.ndarray:
    times, values = np.array([time for time, _ in steps]), np.array([value for _, value in steps])
    return values[np.maximum(np.searchsorted(times, moments, side="right") - 1, 0)]


def _between(
    axes: Axes, moments: np.ndarray, lines: Sequence[np.ndarray], colour: str, label: str, step: str | None = None
) -> None:
    """The highest of the lines, and an area down to the lowest."""
    low, high = np.fmin.reduce(lines), np.fmax.reduce(lines)
    axes.fill_between(moments, low, high, step=step, color=colour, alpha=0.25, linewidth=0)
    axes.plot(moments, high, color=colour, label=label, drawstyle="steps-mid" if step else "default")


def _named(axes: Axes, title: str, unit: str) -> None:
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.set_ylabel(unit)
    if axes.get_ylim()[0] != 0:
        axes.set_ylim(bottom=0)
    if axes.get_ylim()[1] <= 0.06:  # a line of zeros fills no frame
        axes.set_ylim(0, 1)


def _minutes(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} minutes" if minutes > 1 else "a minute"
