"""The account's metric filters: log events become metric data."""

import json
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.account import Account


def _put_filter(account: Account, group: str, pattern: str, **transformation: Any) -> None:
    account.client("logs").put_metric_filter(
        logGroupName=group,
        filterName="filter",
        filterPattern=pattern,
        metricTransformations=[
            {"metricNamespace": group, "metricName": "Matches", "metricValue": "1"} | transformation
        ],
    )


def _log(account: Account, group: str, *messages: str) -> None:
    now = int(time.time() * 1000)
    account.client("logs").put_log_events(
        logGroupName=group,
        logStreamName="stream",
        logEvents=[{"timestamp": now, "message": message} for message in messages],
    )


def _sum(account: Account, group: str, *dimensions: dict[str, str]) -> list[float]:
    now = time.time()
    statistics = account.client("cloudwatch").get_metric_statistics(
        Namespace=group,
        MetricName="Matches",
        Dimensions=list(dimensions),
        StartTime=now - 3600,
        EndTime=now + 3600,
        Period=7200,
        Statistics=["Sum", "SampleCount"],
    )
    return [point["Sum"] for point in statistics["Datapoints"]]


@pytest.fixture
def group(control_plane: Account, request: pytest.FixtureRequest) -> str:
    """A log group of the test's own with one stream."""
    logs = control_plane.client("logs")
    name = request.node.originalname
    logs.create_log_group(logGroupName=name)
    logs.create_log_stream(logGroupName=name, logStreamName="stream")
    return name


def test_matching_events_are_counted(control_plane: Account, group: str) -> None:
    _put_filter(control_plane, group, '{ $.reason = "fetch_denied" }')
    denied, fine = json.dumps({"reason": "fetch_denied"}), json.dumps({"reason": "ok"})
    _log(control_plane, group, fine, "not json")
    assert _sum(control_plane, group) == []
    _log(control_plane, group, denied, fine, denied)
    assert _sum(control_plane, group) == [2.0]


def test_a_changed_filter_replaces_the_old_one(control_plane: Account, group: str) -> None:
    _put_filter(control_plane, group, "%AccessDenied%")
    _put_filter(control_plane, group, "Throttling")
    [filter_] = control_plane.client("logs").describe_metric_filters(logGroupName=group)["metricFilters"]
    assert filter_["filterPattern"] == "Throttling"
    _log(control_plane, group, "AccessDeniedException")
    assert _sum(control_plane, group) == []


def test_values_come_from_the_event_and_defaults_where_none_matches(control_plane: Account, group: str) -> None:
    _put_filter(control_plane, group, "{ $.milliseconds > 0 }", metricValue="$.milliseconds", defaultValue=0)
    _log(control_plane, group, '{"milliseconds": 20}', '{"milliseconds": 22}')
    assert _sum(control_plane, group) == [42.0]
    _log(control_plane, group, "nothing")
    assert _sum(control_plane, group) == [42.0]


def test_dimensions_come_from_the_event(control_plane: Account, group: str) -> None:
    _put_filter(control_plane, group, "{ $.code = 4* }", dimensions={"Code": "$.code"})
    _log(control_plane, group, '{"code": 403}', '{"code": 404}', '{"code": 403}')
    assert _sum(control_plane, group, {"Name": "Code", "Value": "403"}) == [2.0]


def test_what_cannot_be_evaluated_is_refused(control_plane: Account, group: str) -> None:
    with pytest.raises(ClientError, match=r"InvalidParameterException.*unexpected"):
        _put_filter(control_plane, group, "{ $.list[*] = 1 }")
    with pytest.raises(ClientError, match="log group does not exist"):
        _put_filter(control_plane, "absent", "")
