"""A trace of requests from a file: CSV with the header `time` or `time,count`, or a metric that CloudWatch exported."""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from capacity import metric_export
from capacity.errors import UserError

MINUTE = 60.0
MOST_REQUESTS = 100_000_000  # each is simulated, and takes some 60 bytes

# A trace that names no date begins on a Monday, 1 January 2024, so that schedules know what day it is.
MONDAY = datetime(2024, 1, 1, tzinfo=UTC).timestamp()
UNIX = 1e9  # seconds from here on count from 1970: no trace is thirty years long
LATEST = datetime(2200, 1, 1, tzinfo=UTC).timestamp()


@dataclass(frozen=True)
class Trace:
    """When requests arrive.

    arrivals: float64, ascending seconds since the trace's beginning, a request each; shape (requests,).
    duration: seconds, whole minutes. begins: Unix time.
    """

    name: str
    arrivals: np.ndarray
    duration: float
    begins: float = MONDAY


def read(path: Path, seed: int = 0) -> Trace:
    """The trace of a file.

    `time` alone is a line a request. `time,count` is a line a period of equal length (60 s where there is one): its
    requests are spread over the period at random, by the seed, as are those of a metric (see capacity.metric_export).
    Times count from the whole minute before the first. Raises UserError, naming file and line, for anything else, gaps
    in `time,count` among them: nobody but the user knows whether nothing came or nothing was recorded.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            if file.read(1) == "{":
                return _of_metric(path, metric_export.read_json(path, "{" + file.read()), seed)
            file.seek(0)
            rows = csv.reader(file, skipinitialspace=True)
            header = [name.strip().lower() for name in next(rows, [])]
            if header and header[0] in metric_export.CONSOLE_HEADERS:
                return _of_metric(path, metric_export.read_csv(path, rows, lambda: rows.line_num), seed)
            if header not in (["time"], ["time", "count"]):
                found = ",".join(header) if header else "an empty file"
                raise UserError(f"{path}:1: expected the header time or time,count, found {found}")
            times, counts, dated = _columns(path, rows, len(header))
            if times and (days := (times[-1] - times[0]) / metric_export.DAY_SECONDS) > metric_export.LONGEST_DAYS:
                raise UserError(
                    f"{path}:{rows.line_num}: {days:,.0f} days after the first line: give at most "
                    f"{metric_export.LONGEST_DAYS}"
                )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    if not times:
        raise UserError(f"{path}:2: no requests below the header: give at least one line")
    starts, begins = _from_minute(path, np.frombuffer(times))
    if not dated and begins < UNIX:
        begins += MONDAY
    if len(header) == 1:
        return Trace(path.name, starts, _whole_minutes(starts[-1]), begins)
    return _spread(path, path.name, starts, begins, np.frombuffer(counts).astype(np.int64), seed)


def _of_metric(path: Path, periods: metric_export.Periods, seed: int) -> Trace:
    name = f"{path.name} ({periods.missing:,} of {len(periods.counts):,} periods have no datapoint: no requests)"
    starts, begins = _from_minute(path, periods.starts)
    return _spread(path, name if periods.missing else path.name, starts, begins, periods.counts, seed)


def _from_minute(path: Path, times: np.ndarray) -> tuple[np.ndarray, float]:
    """Times since the whole minute before the first, and that minute."""
    minute = float(times[0] // MINUTE * MINUTE)
    if minute > LATEST:
        raise UserError(f"{path}: the first time, {times[0]:.0f} s, is after the year 2199: give seconds")
    return times - minute, minute


def _columns(path: Path, rows: Iterator[list[str]], width: int) -> tuple[array[float], array[float], bool]:
    """The checked times and counts (empty where there is no such column), and whether the times are dates."""
    times, counts = array("d"), array("d")
    seconds_or_iso: type | None = None
    for row in rows:
        place = f"{path}:{rows.line_num}"
        if len(row) != width:
            raise UserError(f"{place}: {len(row)} columns, the header has {width}")
        time, kind = _time(place, row[0].strip())
        if kind is not (seconds_or_iso := seconds_or_iso or kind):
            raise UserError(f"{place}: time {row[0]!r}: seconds and ISO 8601 are mixed; use one of them")
        if times and (time < times[-1] or (width == 2 and time == times[-1])):
            raise UserError(f"{place}: time {row[0]} is not after the line before: sort the file by time")
        times.append(time)
        if width == 2:
            counts.append(_count(place, row[1].strip()))
            _check_gap(place, row[0], times)
    return times, counts, seconds_or_iso is datetime


def _time(place: str, text: str) -> tuple[float, type]:
    """Seconds, and whether they were written as a number or a date. A date without a zone is UTC."""
    try:
        time, kind = float(text), float
    except ValueError:
        try:
            date = datetime.fromisoformat(text)
        except ValueError:
            raise UserError(f"{place}: time {text!r} is neither seconds nor ISO 8601") from None
        time, kind = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp(), datetime
    if not math.isfinite(time) or time < 0:
        raise UserError(f"{place}: time {text} is not a number of seconds from 0")
    return time, kind


def _count(place: str, text: str) -> float:
    try:
        count = float(text)
    except ValueError:
        count = math.nan
    if not (0 <= count < 1e9 and count == int(count)):  # CloudWatch writes 12 as 12.0
        raise UserError(f"{place}: count {text!r} is not a whole number from 0")
    return count


def _check_gap(place: str, text: str, times: array[float]) -> None:
    if len(times) < 3:
        return
    period, step = times[1] - times[0], times[-1] - times[-2]
    if not math.isclose(step, period, rel_tol=1e-6, abs_tol=1e-3):
        raise UserError(
            f"{place}: a gap: time {text} comes {step:g} s after the line before, the first two are {period:g} s "
            "apart: add the missing lines, with count 0 where nothing came"
        )


def _spread(path: Path, name: str, starts: np.ndarray, begins: float, counts: np.ndarray, seed: int) -> Trace:
    if not counts.any():
        raise UserError(f"{path}: every count is 0: there is nothing to simulate")
    if counts.sum() > MOST_REQUESTS:
        raise UserError(
            f"{path}: {counts.sum():,} requests, of which each is simulated: give a part of it with at most "
            f"{MOST_REQUESTS:,}"
        )
    period = float(starts[1] - starts[0]) if len(starts) > 1 else MINUTE
    arrivals = np.repeat(starts, counts) + np.random.default_rng(seed).random(counts.sum()) * period
    arrivals.sort()
    return Trace(name, arrivals, _whole_minutes(starts[-1] + period), begins)


def _whole_minutes(seconds: float) -> float:
    return max(1, math.ceil(seconds / MINUTE)) * MINUTE
