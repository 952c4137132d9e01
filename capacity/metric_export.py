"""Requests by period, as CloudWatch exports a metric: the command line's JSON, and the console's CSV.

CloudWatch stores nothing for a period without data, and a function or endpoint that nobody calls sends none: a period
that is missing is one without requests. How long a period is stands in no export: it is the longest that fits between
all datapoints.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from capacity.errors import UserError

ONE_PERIOD_SECONDS, DAY_SECONDS = 60, 86_400
LONGEST_DAYS = 3660
CONSOLE_HEADERS = ("full label", "label", "timestamp")
COMMANDS = "`aws cloudwatch get-metric-data` or `get-metric-statistics --statistics Sum`"


@dataclass(frozen=True)
class Periods:
    """starts: seconds since 1970, ascending by `seconds` each; counts: requests in each, int64; shape (periods,).

    missing: how many of them had no datapoint, and so no requests.
    """

    starts: np.ndarray
    counts: np.ndarray
    seconds: int
    missing: int


@dataclass(frozen=True)
class Datapoint:
    """When, how many, and what tells the place that says so, `FILE:LINE`: looking for it takes a while."""

    time: float
    count: float
    place: Callable[[], str]


def read_json(path: Path, text: str) -> Periods:
    """The sums of one metric. Raises UserError, naming file and line, for anything else."""
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path}:{getattr(error, 'lineno', 1)}: not JSON: {error}") from None
    except RecursionError:
        raise UserError(f"{path}:1: not the JSON of {COMMANDS}") from None

    def place(key: Any) -> str:
        return f"{path}:{text.count(chr(10), 0, max(text.find(json.dumps(key)), 0)) + 1}"

    return _periods(
        path, [_datapoint(partial(place, time), time, count) for time, count in _pairs(path, content, place)]
    )


def _pairs(path: Path, content: Any, place: Callable[[Any], str]) -> list[tuple[Any, Any]]:
    """The timestamps with their sums, of whichever command."""
    if isinstance(content, dict) and isinstance(results := content.get("MetricDataResults"), list):
        if len(results) != 1 or not isinstance(results[0], dict):
            raise UserError(f"{place('MetricDataResults')}: {len(results)} metrics: export one of them")
        status = results[0].get("StatusCode", "Complete")
        if status != "Complete":
            raise UserError(
                f"{place('StatusCode')}: StatusCode is {status}: export all of the metric, or a shorter time"
            )
        times, counts = results[0].get("Timestamps"), results[0].get("Values")
        if not isinstance(times, list) or not isinstance(counts, list) or len(times) != len(counts):
            raise UserError(f"{place('Timestamps')}: not as many Timestamps as Values")
        return list(zip(times, counts, strict=True))
    if isinstance(content, dict) and isinstance(points := content.get("Datapoints"), list):
        if not all(isinstance(point, dict) and {"Timestamp", "Sum"} <= point.keys() for point in points):
            raise UserError(
                f"{place('Datapoints')}: a datapoint without Timestamp or Sum: export with --statistics Sum"
            )
        return [(point["Timestamp"], point["Sum"]) for point in points]
    raise UserError(f"{path}:1: not the JSON of {COMMANDS}")


def read_csv(path: Path, rows: Iterator[list[str]], line: Callable[[], int]) -> Periods:
    """The rows of the console's CSV below its first; `line` tells the number of the row read last.

    Its head is not documented: it ends where a row begins with a time.
    """
    points = []
    for row in rows:
        place = partial("{}:{}".format, path, line())
        if not any(cell.strip() for cell in row):
            continue
        if not points and _time(row[0]) is None:
            continue
        if len(row) != 2:
            raise UserError(f"{place()}: {len(row)} columns: export a graph of one metric")
        if row[1].strip():
            points.append(_datapoint(place, row[0], row[1]))
    return _periods(path, points)


def _datapoint(place: Callable[[], str], time: Any, count: Any) -> Datapoint:
    seconds, number = _time(time), _number(count)
    if seconds is None or seconds != int(seconds):
        raise UserError(f"{place()}: time {time!r} is neither whole seconds nor ISO 8601")
    if not (0 <= number < 1e9 and number == int(number)):
        raise UserError(f"{place()}: {count!r} is not a whole number from 0: export the Sum of Invocations")
    return Datapoint(seconds, number, place)


def _periods(path: Path, points: list[Datapoint]) -> Periods:
    if not points:
        raise UserError(f"{path}:1: no datapoint: choose a time in which there were requests")
    points = sorted(points, key=lambda point: point.time)
    for before, after in pairwise(points):
        if before.time == after.time:
            raise UserError(f"{after.place()}: this time stands in the file twice: export one metric, once")
    starts = [int(point.time) for point in points]
    seconds = math.gcd(*(start - starts[0] for start in starts)) or ONE_PERIOD_SECONDS
    if (days := (points[-1].time - points[0].time) / DAY_SECONDS) > LONGEST_DAYS:
        raise UserError(f"{points[-1].place()}: {days:,.0f} days after the first: give at most {LONGEST_DAYS}")
    places = (np.array(starts) - starts[0]) // seconds
    counts = np.zeros(places[-1] + 1, dtype=np.int64)
    counts[places] = [point.count for point in points]
    return Periods(starts[0] + np.arange(len(counts)) * seconds, counts, seconds, len(counts) - len(points))


def _time(value: Any) -> float | None:
    """Seconds since 1970 of seconds or a date; one without a zone is UTC. None of what is neither."""
    number = _number(value)
    if math.isfinite(number):
        return number if number >= 0 else None
    try:
        date = datetime.fromisoformat(value.strip().replace("/", "-"))
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (AttributeError, ValueError, OverflowError):
        return None


def _number(value: Any) -> float:
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
