"""What CloudWatch exports is read as a trace, and what it does not is named."""

import json
import re
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capacity import trace
from capacity.errors import UserError

BEGIN = datetime(2026, 11, 1, 10, tzinfo=UTC)


def stamp(minute: int) -> str:
    return (BEGIN + timedelta(minutes=minute)).isoformat()


def metric_data(values: dict[int, float], **changes) -> dict:
    """As `aws cloudwatch get-metric-data` prints it, the latest first."""
    minutes = sorted(values, reverse=True)
    result = {
        "Id": "m1",
        "Label": "Invocations",
        "Timestamps": [stamp(minute) for minute in minutes],
        "Values": [values[minute] for minute in minutes],
        "StatusCode": "Complete",
    }
    return {"MetricDataResults": [result | changes], "Messages": []}


def metric_statistics(values: dict[int, float]) -> dict:
    """As `aws cloudwatch get-metric-statistics` prints it, in no order."""
    points = [{"Timestamp": stamp(minute), "Sum": value, "Unit": "Count"} for minute, value in values.items()]
    return {"Label": "Invocations", "Datapoints": points}


def console(values: dict[int, float]) -> str:
    """As the console's graph is downloaded, times with slashes."""
    lines = [f"{(BEGIN + timedelta(minutes=minute)):%Y/%m/%d %H:%M:%S},{value}" for minute, value in values.items()]
    return "\n".join(["Full label,Invocations", "Label,Invocations", "Description,", "", *lines, ""])


@pytest.fixture
def read(tmp_path):
    def read(content: dict | str):
        path = tmp_path / "metric.export"
        path.write_text(content if isinstance(content, str) else json.dumps(content, indent=4))
        return trace.read(path, seed=1)

    return read


@pytest.mark.parametrize("export", [metric_data, metric_statistics, console])
def test_sums_are_spread_over_their_minutes_and_a_missing_one_had_no_requests(read, export):
    made = read(export({3: 7.0, 0: 5.0, 1: 2.0}))
    assert np.bincount((made.arrivals // 60).astype(int)).tolist() == [5, 2, 0, 7]
    assert made.duration == 240
    assert made.name == "metric.export (1 of 4 periods have no datapoint: no requests)"


def test_the_period_is_the_longest_that_fits(read):
    made = read(metric_data({0: 10.0, 5: 10.0, 20: 10.0}))
    assert made.duration == 25 * 60
    assert read(metric_data({0: 1.0, 2: 1.0, 5: 1.0})).duration == 6 * 60
    assert np.bincount((made.arrivals // 300).astype(int)).tolist() == [10, 10, 0, 0, 10]


def test_a_single_datapoint_is_a_minute(read):
    assert read(metric_data({0: 3.0})).duration == 60


def test_times_in_seconds(read):
    exported = metric_data({0: 1.0, 1: 2.0}, Timestamps=[1_800_000_060, 1_800_000_000])
    assert np.bincount((read(exported).arrivals // 60).astype(int)).tolist() == [1, 2]


@pytest.mark.parametrize("export", [metric_data, metric_statistics, console])
@settings(max_examples=30, deadline=None)
@given(values=st.dictionaries(st.integers(0, 2000), st.integers(1, 50).map(float), min_size=1, max_size=20))
def test_no_request_is_lost(tmp_path_factory, export, values):
    path = tmp_path_factory.getbasetemp() / "any.export"
    content = export(values)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    made = trace.read(path)
    assert len(made.arrivals) == sum(values.values())
    assert made.arrivals[0] >= 0 and made.arrivals[-1] <= made.duration


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        ("{", 1, "not JSON"),
        ('{\n"MetricDataResults": [}', 2, "not JSON"),
        ({"Metrics": []}, 1, "not the JSON of `aws cloudwatch get-metric-data`"),
        ({"MetricDataResults": []}, 2, "0 metrics: export one"),
        (metric_data({0: 1.0}, StatusCode="PartialData"), 12, "StatusCode is PartialData"),
        (metric_data({0: 1.0}, Values=[]), 6, "not as many Timestamps as Values"),
        (metric_data({}), 1, "no datapoint"),
        (metric_data({0: 1.0}, Timestamps=["noon"]), 7, "'noon' is neither whole seconds nor ISO 8601"),
        (metric_data({0: 1.0, 1: -1.0}), 7, "-1.0 is not a whole number from 0: export the Sum"),
        (metric_data({0: 1.0, 1: 0.5}), 7, "0.5 is not a whole number"),
        (metric_data({0: 1.0, 1: float("nan")}), 7, "nan is not a whole number"),
        (metric_data({0: 1.0}, Timestamps=[0.5]), 7, "0.5 is neither whole seconds nor"),
        (metric_data({0: 1.0, 1: 2.0}, Timestamps=[stamp(0)] * 2), 7, "stands in the file twice"),
        (metric_data({0: 1.0, 1: 1.0, 6_000_000: 1.0}), 7, "days after the first: give at most"),
        (metric_data({0: 0.0}), None, "every count is 0"),
        ({"Label": "Invocations", "Datapoints": [{"Timestamp": stamp(0), "Average": 1.0}]}, 3, "with --statistics Sum"),
        ("Full label,Invocations\n", 1, "no datapoint"),
        (console({0: 1.0}) + "soon,1\n", 6, "'soon' is neither"),
        (console({0: 1.0}) + "2026/11/01 10:01:00,many\n", 6, "'many' is not a whole number"),
        (console({0: 1.0}) + "2026/11/01 10:01:00,1,2\n", 6, "3 columns: export a graph of one metric"),
    ],
)
def test_a_mistake_is_named_by_file_and_line(read, content, line, message):
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        read(content)
    assert f"metric.export:{line}: " in str(raised.value) if line else "metric.export: " in str(raised.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.sampled_from([stamp(0), "noon", ""]),
    lambda parts: (
        st.lists(parts, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["MetricDataResults", "Timestamps", "Values", "StatusCode", "Datapoints", "Timestamp", "Sum"]
            ),
            parts,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(content=st.dictionaries(st.sampled_from(["MetricDataResults", "Datapoints", "Label"]), JSON, max_size=3))
def test_whatever_the_json_holds_is_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "whatever.json"
    path.write_text(json.dumps(content))
    try:
        made = trace.read(path)
    except UserError as error:
        assert str(path) in str(error)
    else:
        assert len(made.arrivals)
