"""When scheduled actions run: against a clock that is read minute by minute."""

import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from capacity import schedule
from capacity.schedule import Change, ScheduledAction, course, parse

DAY = 86_400.0


def unix(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def moments(text: str, begin: str, days: float, timezone: str = "UTC") -> list[str]:
    found = parse(text, timezone).between(unix(begin), unix(begin) + days * DAY)
    return [f"{datetime.fromtimestamp(moment, UTC):%m-%d %H:%M}" for moment in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cron(30 6 ? * MON *)", ["10-12 06:30"]),  # Application Auto Scaling's own example
        ("cron(0 20 ? * MON-FRI *)", ["10-09 20:00", "10-12 20:00", "10-13 20:00"]),
        ("cron(0 20 ? * 2-6 *)", ["10-09 20:00", "10-12 20:00", "10-13 20:00"]),
        ("cron(1/25 8 10 OCT ? 2026)", ["10-10 08:01", "10-10 08:26", "10-10 08:51"]),  # every 25th, from 1 on
        ("cron(0 8-12/2 13 10 ? *)", ["10-13 08:00", "10-13 10:00", "10-13 12:00"]),
        ("cron(0 0 ? * SUN,TUE *)", ["10-11 00:00", "10-13 00:00"]),
        ("cron(0 0 11 * ? 2027-2030)", []),
        ("at(2026-10-12T18:30:00)", ["10-12 18:30"]),
        ("at(2025-10-12T18:30:00)", []),
    ],
)
def test_worked_examples(text, expected):
    assert moments(text, "2026-10-09T12:00", 5) == expected  # from a Friday's noon


def test_what_begins_and_ends_is_left_out():
    assert moments("cron(0 * * * ? *)", "2026-10-09T12:00", 3 / 24) == ["10-09 13:00", "10-09 14:00"]


def test_the_clock_of_a_time_zone():
    assert moments("cron(0 7 * * ? *)", "2026-03-28T00:00", 2, "Europe/Berlin") == ["03-28 06:00", "03-29 05:00"]
    # The night of 29 March has no half past two, that of 25 October has two.
    assert moments("cron(30 2 * * ? *)", "2026-03-28T00:00", 3, "Europe/Berlin") == ["03-28 01:30", "03-30 00:30"]
    assert moments("cron(30 2 * * ? *)", "2026-10-24T12:00", 2, "Europe/Berlin") == ["10-25 00:30", "10-26 01:30"]
    assert moments("at(2026-12-24T18:00:00)", "2026-12-24T00:00", 1, "America/New_York") == ["12-24 23:00"]


def listed(least: int, most: int, names: tuple[str, ...] = ()):
    """A field as it is written, and the numbers it stands for."""
    numbers = st.integers(least, most)

    def written(number: int, named: bool) -> str:
        return names[number - least] if names and named else str(number)

    def item(low: int, high: int, step: int, form: int, named: bool) -> tuple[str, set[int]]:
        low, high = min(low, high), max(low, high)
        return [
            ("*", set(range(least, most + 1))),
            (f"*/{step}", set(range(least, most + 1, step))),
            (written(low, named), {low}),
            (f"{written(low, named)}/{step}", set(range(low, most + 1, step))),
            (f"{written(low, named)}-{written(high, named)}", set(range(low, high + 1))),
            (f"{written(low, named)}-{written(high, named)}/{step}", set(range(low, high + 1, step))),
        ][form]

    items = st.builds(item, numbers, numbers, st.integers(1, most), st.integers(0, 5), st.booleans())
    return st.lists(items, min_size=1, max_size=3).map(
        lambda several: (",".join(text for text, _ in several), set().union(*(found for _, found in several)))
    )


EVERY = st.just(("*", range(3000)))
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"]
# Around the clock changes of those zones, a leap day and a new year.
BEGINS = ["2026-03-28T13:07", "2026-10-24T13:07", "2026-03-07T20:00", "2026-11-01T00:00", "2026-04-04T00:00"]
BEGINS += ["2028-02-28T12:00", "2026-12-31T06:30"]


@settings(max_examples=120, deadline=None)
@given(
    minutes=listed(0, 59),
    hours=listed(0, 23),
    days=EVERY | listed(1, 31),
    months=EVERY | listed(1, 12, schedule.MONTHS),
    weekdays=listed(1, 7, schedule.WEEKDAYS),
    years=EVERY | st.sampled_from([("2026", {2026}), ("2027-2028", {2027, 2028}), ("2026/2", {2026, 2028})]),
    by_weekday=st.booleans(),
    timezone=st.sampled_from(ZONES),
    begin=st.sampled_from(BEGINS),
)
def test_it_is_what_a_look_at_the_clock_each_minute_finds(
    minutes, hours, days, months, weekdays, years, by_weekday, timezone, begin
):
    day_texts = ("?", weekdays[0]) if by_weekday else (days[0], "?")
    parsed = parse(f"cron({minutes[0]} {hours[0]} {day_texts[0]} {months[0]} {day_texts[1]} {years[0]})", timezone)
    zone, start = ZoneInfo(timezone), unix(begin)
    expected = []
    for minute in range(1, 2 * 1440):
        clock = datetime.fromtimestamp(start + 60 * minute, zone)
        day = clock.isoweekday() % 7 + 1 in weekdays[1] if by_weekday else clock.day in days[1]
        time = clock.minute in minutes[1] and clock.hour in hours[1]
        if time and day and clock.month in months[1] and clock.year in years[1] and not clock.fold:
            expected.append(start + 60 * minute)
    event("something" if expected else "nothing")
    assert list(parsed.between(start, start + 2 * DAY)) == expected
    end = start + 2 * DAY - 60
    if expected:
        assert parsed.latest(end) == expected[-1]
    else:
        assert (parsed.latest(end) or 0) <= start


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("cron(0 20 L * ? *)", "day-of-month L is not read"),
        ("cron(0 20 15W * ? *)", "L, W and # are not simulated"),
        ("cron(0 20 ? * 6#2 *)", "day-of-week 6#2 is not read"),
        ("cron(0 20 ? * 5L *)", "give 1 to 7 or SUN to SAT"),
        ("cron(0 20 ? * mon *)", "SUN to SAT"),
        ("cron(0 20 ? * FRI-MON *)", "ranges upwards"),
        ("cron(60 20 * * ? *)", "minutes 60 is not read: give 0 to 59"),
        ("cron(0/00 20 * * ? *)", "minutes 0/00"),
        ("cron(0 20 0 * ? *)", "day-of-month 0"),
        ("cron(0 20 * * ? 1969)", "give 1970 to 2199"),
        ("cron(? 20 * * ? *)", "minutes ? is not read"),
        ("cron(0,,5 20 * * ? *)", "minutes  is not read"),
        ("cron(0 20 * * * *)", "write ? for one of"),
        ("cron(0 20 ? * ? *)", "write ? for one of"),
        ("cron(0 20 * * ?)", "write at("),
        ("cron(0 20 * * ? *", "write at("),
        ("rate(1 day)", "write at("),
        ("at(2026-02-30T18:00:00)", "write at("),
        ("at(2026-12-24T18:00:00Z)", "write at("),
        ("at(2026-12-24)", "write at("),
        ("", "write at("),
    ],
)
def test_what_is_not_read_is_refused_with_a_remedy(text, remedy):
    with pytest.raises(ValueError, match=re.escape(remedy)):
        parse(text)


@given(text=st.text(st.sampled_from("cronat() */,-?#LWMONJAN0123456789:T"), max_size=40))
def test_whatever_is_said_is_read_or_refused(text):
    for form in (text, f"cron({text})", f"at({text})"):
        try:
            assert parse(form).text == form
        except ValueError as error:
            assert str(error)


@pytest.mark.parametrize("timezone", ["", "Europe", "Mars/Olympus", "../etc/passwd", "/etc/localtime", "utc\0"])
def test_a_time_zone_that_is_none(timezone):
    with pytest.raises(ValueError, match="such as Europe/Berlin"):
        parse("cron(0 20 * * ? *)", timezone)


def test_a_machine_without_time_zone_data(monkeypatch):
    def nothing(name: str):
        raise schedule.ZoneInfoNotFoundError(name)

    monkeypatch.setattr(schedule, "ZoneInfo", nothing)
    monkeypatch.setattr(schedule, "available_timezones", set)
    assert parse("cron(0 20 * * ? *)", "UTC")
    with pytest.raises(ValueError, match="install tzdata, or write UTC"):
        parse("cron(0 20 * * ? *)", "Europe/Berlin")


def test_what_is_in_force_at_the_beginning_and_what_comes():
    def action(name: str, text: str) -> ScheduledAction:
        return ScheduledAction(name, parse(text), 1, 2)

    night, morning = action("night", "cron(0 20 * * ? *)"), action("morning", "cron(0 8 * * ? *)")
    twice, never = action("twice", "cron(0 8,20 * * ? *)"), action("never", "at(2190-01-01T00:00:00)")
    begins = unix("2026-10-09T07:00")
    in_force, during = course((morning, night), begins, DAY)
    assert in_force == Change(-11 * 3600.0, night)
    assert during == [Change(3600.0, morning), Change(13 * 3600.0, night)]
    # Of one moment: the last by name.
    assert course((twice, night), begins, DAY)[0].action is twice
    assert [change.action.name for change in course((twice, night), begins, DAY)[1]] == ["twice", "twice"]
    # What happens as the trace begins is in force.
    assert course((night,), unix("2026-10-09T20:00"), DAY) == (Change(0.0, night), [])
    assert course((never,), begins, DAY) == (None, [])
    assert course((), begins, DAY) == (None, [])
