"""Traces: what a CSV may hold, how a mistake in one is named, and that the named shapes are what they say."""

import re
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capacity import shapes, trace
from capacity.errors import UserError


@pytest.fixture
def written(tmp_path):
    def write(text: str | bytes):
        path = tmp_path / "some.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_a_line_a_request(written):
    read = trace.read(written("time\n0.5\n0.5\n61\n"))
    assert read.arrivals.tolist() == [0.5, 0.5, 61.0]
    assert read.duration == 120


def test_dates_count_from_the_whole_minute_before_the_first(written):
    read = trace.read(written("time\n2026-03-01T10:00:30Z\n2026-03-01T11:00:31+01:00\n2026-03-01 10:00:32\n"))
    assert read.arrivals.tolist() == [30.0, 31.0, 32.0]


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        ("time\n2026-03-01T10:00:30+01:00\n", datetime(2026, 3, 1, 9, 0, tzinfo=UTC)),
        ("time\n1998-03-01T10:00:30\n", datetime(1998, 3, 1, 10, 0, tzinfo=UTC)),  # before 2001: dates are dates
        ("time,count\n1790000000,5\n", datetime(2026, 9, 21, 14, 13, tzinfo=UTC)),  # Unix time, 14:13:20
        ("time\n30\n", datetime(2024, 1, 1, tzinfo=UTC)),  # a Monday
        ("time,count\n90000,5\n90060,5\n", datetime(2024, 1, 2, 1, 0, tzinfo=UTC)),
        ('{"Datapoints": [{"Timestamp": "2026-03-01T10:00:00Z", "Sum": 5}]}', datetime(2026, 3, 1, 10, tzinfo=UTC)),
    ],
)
def test_when_it_begins(written, text, begins):
    assert datetime.fromtimestamp(trace.read(written(text)).begins, UTC) == begins


@pytest.mark.parametrize("shape", shapes.SHAPES.values(), ids=shapes.SHAPES)
def test_a_named_shape_begins_on_a_monday(shape):
    assert f"{datetime.fromtimestamp(shape(0).begins, UTC):%A %H:%M}" == "Monday 00:00"


def test_milliseconds_are_noticed(written):
    with pytest.raises(UserError, match=r"some\.csv: the first time, 1790000000000 s, is after the year 2199"):
        trace.read(written("time\n1790000000000\n1790000000001\n"))


def test_counts_are_spread_over_their_period(written):
    read = trace.read(written("time,count\n600,0\n900,2000.0\n1200,1\n"), seed=1)
    assert read.duration == 900
    assert ((read.arrivals >= 300) & (read.arrivals < 600)).sum() == 2000
    assert abs(np.median(read.arrivals) - 450) < 15
    assert (np.diff(read.arrivals) >= 0).all()


def test_counts_are_spread_alike_by_the_same_seed(written):
    path = written("time,count\n0,50\n60,50\n")
    assert (trace.read(path, 1).arrivals == trace.read(path, 1).arrivals).all()
    assert (trace.read(path, 1).arrivals != trace.read(path, 2).arrivals).any()


@pytest.mark.parametrize("text", ["\ufefftime,count\r\n0,1\r\n60,2\r\n", '"Time", "Count"\n0,"1"\n60,2\n'])
def test_what_spreadsheets_write(written, text):
    assert len(trace.read(written(text)).arrivals) == 3


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "found an empty file"),
        ("seconds\n1\n", 1, "expected the header time or time,count, found seconds"),
        ("time\n", 2, "no requests below the header"),
        ("time\n1\n-2\n", 3, "time -2 is not a number of seconds from 0"),
        ("time\n1\nNaN\n", 3, "time NaN is not"),
        ("time\n1\ninf\n", 3, "time inf is not"),
        ("time\n1\nyesterday\n", 3, "'yesterday' is neither seconds nor ISO 8601"),
        ("time\n5\n4\n", 3, "sort the file"),
        ("time\n1\n2026-03-01T10:00:00Z\n", 3, "mixed"),
        ("time\n1\n\n2\n", 3, "0 columns, the header has 1"),
        ("time,count\n0,1\n60\n", 3, "1 columns, the header has 2"),
        ("time,count\n0,1\n60,-1\n", 3, "count '-1' is not a whole number"),
        ("time,count\n0,1\n60,nan\n", 3, "count 'nan' is not"),
        ("time,count\n0,1\n60,1.5\n", 3, "count '1.5' is not"),
        ("time,count\n0,1\n60,\n", 3, "count '' is not"),
        ("time,count\n0,1\n0,1\n", 3, "sort the file"),
        ("time\n1\n1e12\n", 3, "days after the first line: give at most 3660"),
        ("time,count\n0,1\n60,1\n240,1\n", 4, "a gap: time 240 comes 180 s after the line before"),
    ],
)
def test_a_mistake_is_named_by_file_and_line(written, text, line, message):
    path = written(text)
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        trace.read(path)
    assert str(raised.value).startswith(f"{path}:{line}: ")


@pytest.mark.parametrize("content", [b"time\n\xff\n", b"time\n1\n\x002\n"])
def test_a_file_that_is_no_text(written, content):
    with pytest.raises(UserError, match=re.escape("some.csv")):
        trace.read(written(content))


def test_nothing_but_zeros(written):
    with pytest.raises(UserError, match="every count is 0"):
        trace.read(written("time,count\n0,0\n60,0\n"))


def test_more_requests_than_can_be_simulated_one_by_one(written):
    day = "".join(f"{60 * minute},600000\n" for minute in range(1440))  # 10,000 a second
    with pytest.raises(UserError, match=r"some\.csv: 864,000,000 requests.* at most 100,000,000"):
        trace.read(written("time,count\n" + day))


@settings(max_examples=50, deadline=None)
@given(times=st.lists(st.integers(0, 10**7).map(lambda tenths: tenths / 10), min_size=1, max_size=30).map(sorted))
def test_seconds_and_dates_say_the_same(tmp_path_factory, times):
    folder = tmp_path_factory.getbasetemp()
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    (folder / "seconds.csv").write_text("time\n" + "".join(f"{time}\n" for time in times))
    dates = "".join(f"{(begin + timedelta(seconds=time)).isoformat()}\n" for time in times)
    (folder / "dates.csv").write_text("time\n" + dates)
    seconds = trace.read(folder / "seconds.csv")
    np.testing.assert_allclose(trace.read(folder / "dates.csv").arrivals, seconds.arrivals, atol=1e-5)
    assert seconds.duration >= seconds.arrivals[-1]
    np.testing.assert_allclose(np.diff(seconds.arrivals), np.diff(times), atol=1e-6)


@settings(max_examples=150, deadline=None)
@given(
    text=st.sampled_from(["time\n", "time,count\n", ""]),
    rest=st.text(st.sampled_from('0123456789.,-:TZe+ \n"\r\x00n'), max_size=40),
)
def test_whatever_a_file_holds_is_read_or_refused(tmp_path_factory, text, rest):
    path = tmp_path_factory.getbasetemp() / "whatever.csv"
    path.write_bytes((text + rest).encode())
    try:
        read = trace.read(path)
    except UserError as error:
        assert str(path) in str(error)
    else:
        assert (np.diff(read.arrivals) >= 0).all()
        assert read.arrivals[0] >= 0 and read.arrivals[-1] <= read.duration


@pytest.mark.parametrize("shape", shapes.SHAPES)
def test_a_named_shape(shape):
    made = [shapes.SHAPES[shape](seed) for seed in range(3)]
    assert (made[0].arrivals == shapes.SHAPES[shape](0).arrivals).all()
    assert len(made[0].arrivals) != len(made[1].arrivals)
    for one in made:
        assert one.duration == 86_400
        assert one.arrivals[0] >= 0 and one.arrivals[-1] < one.duration
        assert (np.diff(one.arrivals) >= 0).all()
    # A day of bursts has some seventy-five of them, a tenth more or less.
    assert np.mean([len(one.arrivals) for one in made]) / 86_400 == pytest.approx(
        2, rel=0.15 if shape == "bursty" else 0.01
    )


def test_the_shapes_differ_as_they_should():
    by_minute = {name: np.bincount((make(3).arrivals // 60).astype(int)) for name, make in shapes.SHAPES.items()}
    # Of a Poisson process the variance is the mean.
    assert by_minute["poisson"].var() / by_minute["poisson"].mean() == pytest.approx(1, abs=0.15)
    assert by_minute["bursty"].var() / by_minute["bursty"].mean() > 50
    hours = by_minute["diurnal"].reshape(24, 60).mean(axis=1) / 60
    assert hours[12] == pytest.approx(3.6, rel=0.05) and hours[0] == pytest.approx(0.4, rel=0.15)
