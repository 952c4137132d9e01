"""Scheduled actions of Application Auto Scaling: at a time the minimum and the maximum become others.

Schedules are at(yyyy-mm-ddThh:mm:ss) and cron(fields), in a time zone, as AWS documents them; of cron's wildcards not
L, W and #, which name days relative to others.
https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-cron-expressions.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

FORMS = "at(2026-12-24T18:00:00) or cron(minutes hours day-of-month month day-of-week year)"
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
EARLIEST, LATEST = 1970, 2199
# Name, least, most, names of the values.
FIELDS = (
    ("minutes", 0, 59, ()),
    ("hours", 0, 23, ()),
    ("day-of-month", 1, 31, ()),
    ("month", 1, 12, MONTHS),
    ("day-of-week", 1, 7, WEEKDAYS),
    ("year", EARLIEST, LATEST, ()),
)
ITEM = re.compile(r"(?:\*|([0-9]+|[A-Z]{3})(?:-([0-9]+|[A-Z]{3}))?)(?:/([0-9]+))?")
ONE_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Schedule:
    """When something happens: at `times` of the days that `on` holds for, by the clock of a time zone.

    What that clock skips in spring does not happen; what it shows twice in autumn happens the first time.
    """

    text: str
    timezone: str
    zone: tzinfo = field(compare=False)
    times: tuple[time, ...] = field(compare=False)
    on: Callable[[date], bool] = field(compare=False)

    def between(self, begin: float, end: float) -> Iterator[float]:
        """When it happens after `begin` and before `end`; Unix times, ascending."""
        day, last = (datetime.fromtimestamp(moment, self.zone).date() for moment in (begin, end))
        while day <= last:
            yield from (moment for moment in self._of(day) if begin < moment < end)
            day += ONE_DAY

    def latest(self, until: float) -> float | None:
        """When it happened last, `until` included; None where it never has."""
        day = datetime.fromtimestamp(until, self.zone).date()
        while day.year >= EARLIEST:
            if passed := [moment for moment in self._of(day) if moment <= until]:
                return passed[-1]
            day -= ONE_DAY
        return None

    def _of(self, day: date) -> list[float]:
        if not self.on(day):
            return []
        shown = (datetime.combine(day, at, self.zone) for at in self.times)
        return sorted(moment.timestamp() for moment in shown if _exists(moment))


def _exists(moment: datetime) -> bool:
    return moment.astimezone(UTC).astimezone(moment.tzinfo).replace(tzinfo=None) == moment.replace(tzinfo=None)


@dataclass(frozen=True)
class ScheduledAction:
    """What becomes the fewest and the most instances, and when."""

    name: str
    schedule: Schedule
    minimum: int
    maximum: int


@dataclass(frozen=True)
class Change:
    """A scheduled action that runs, `time` seconds after a trace's beginning."""

    time: float
    action: ScheduledAction


def course(actions: Sequence[ScheduledAction], begins: float, duration: float) -> tuple[Change | None, list[Change]]:
    """The change in force when a trace begins, if there is one, and those that come while it lasts.

    begins: Unix time; duration: seconds. Of actions of one moment it is the last by name.
    """

    def order(change: Change) -> tuple[float, str]:
        return change.time, change.action.name

    before = [(action.schedule.latest(begins), action) for action in actions]
    in_force = max((Change(at - begins, action) for at, action in before if at is not None), key=order, default=None)
    during = (
        Change(at - begins, action) for action in actions for at in action.schedule.between(begins, begins + duration)
    )
    return in_force, list({change.time: change for change in sorted(during, key=order)}.values())


def parse(text: str, timezone: str = "UTC") -> Schedule:
    """The schedule that a text says. Raises ValueError with the remedy for what AWS does not document, and L, W, #."""
    zone = time_zone(timezone)
    kind, _, inside = text.removesuffix(")").partition("(")
    if kind == "at" and text.endswith(")"):
        moment = _moment(inside)
        return Schedule(text, timezone, zone, (moment.time(),), moment.date().__eq__)
    fields = inside.split()
    if kind != "cron" or not text.endswith(")") or len(fields) != len(FIELDS):
        raise ValueError(f"write {FORMS}")
    if (fields[2] == "?") == (fields[4] == "?"):
        raise ValueError("write ? for one of day-of-month and day-of-week, and only for one")
    # A day that is left open may be any.
    fields = ["*" if place in (2, 4) and said == "?" else said for place, said in enumerate(fields)]
    minutes, hours, days, months, weekdays, years = (
        _numbers(said, *known) for said, known in zip(fields, FIELDS, strict=True)
    )
    times = tuple(time(hour, minute) for hour in sorted(hours) for minute in sorted(minutes))

    def on(day: date) -> bool:
        here = day.year in years and day.month in months and day.day in days
        return here and day.isoweekday() % 7 + 1 in weekdays

    return Schedule(text, timezone, zone, times, on)


def _moment(text: str) -> datetime:
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}", text):
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            pass
    raise ValueError(f"write {FORMS}")


def time_zone(name: str) -> tzinfo:
    """The time zone of a name. Raises ValueError with the remedy."""
    if name == "UTC":  # known without any data
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        if not available_timezones():
            raise ValueError("this machine has no time zone data: install tzdata, or write UTC") from None
        raise ValueError("give an IANA time zone such as Europe/Berlin") from None


def _numbers(said: str, name: str, least: int, most: int, names: Sequence[str]) -> frozenset[int]:
    found: set[int] = set()
    for item in said.split(","):
        match = ITEM.fullmatch(item)
        first, last, step = match.groups() if match else ("", None, None)
        low = least if first is None else _number(first, least, names)
        high = _number(last, least, names) if last else most if first is None or step else low
        if not least <= low <= high <= most or int(step or 1) == 0:
            also = f" or {names[0]} to {names[-1]}" if names else ""
            raise ValueError(
                f"{name} {item} is not read: give {least} to {most}{also}, ranges upwards (-), steps (/), lists (,) or "
                "*; L, W and # are not simulated"
            )
        found.update(range(low, high + 1, int(step or 1)))
    return frozenset(found)


def _number(text: str, least: int, names: Sequence[str]) -> int:
    """The number that a text is or names; one below every field's least where it is neither."""
    if text in names:
        return least + names.index(text)
    return int(text) if text.isdecimal() else -1
