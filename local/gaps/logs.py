"""CloudWatch Logs gaps of moto 5.2.5: metric filters are kept, but never looked at."""

from typing import Any

from moto.cloudwatch.models import cloudwatch_backends
from moto.core.exceptions import JsonRESTError
from moto.core.utils import utcfromtimestamp
from moto.logs.models import LogGroup, LogsBackend, logs_backends

from local import metric_filter
from local.gaps.patch import around


def fill() -> None:
    _metric_filter_syntax()
    _metric_filter_metrics()


def _metric_filter_syntax() -> None:
    """PutMetricFilter: any pattern and any log group are taken, and a change is added beside the old filter."""

    @around(LogsBackend)
    def put_metric_filter(
        original: Any,
        backend: LogsBackend,
        filter_name: str,
        filter_pattern: str,
        log_group_name: str,
        metric_transformations: Any,
    ) -> None:
        if log_group_name not in backend.groups:
            raise JsonRESTError("ResourceNotFoundException", "The specified log group does not exist.")
        try:
            metric_filter.parse(filter_pattern)
        except metric_filter.UnsupportedPattern as error:
            raise JsonRESTError("InvalidParameterException", f"Invalid metric filter pattern: {error}") from None
        backend.delete_metric_filter(filter_name, log_group_name)
        original(backend, filter_name, filter_pattern, log_group_name, metric_transformations)


def _metric_filter_metrics() -> None:
    """PutLogEvents: no metric filter is evaluated into CloudWatch metric data."""

    @around(LogGroup)
    def put_log_events(original: Any, group: LogGroup, log_stream_name: str, log_events: list[dict[str, Any]]) -> str:
        token = original(group, log_stream_name, log_events)
        cloudwatch = cloudwatch_backends[group.account_id][group.region]
        for filter_ in logs_backends[group.account_id][group.region].filters.get_matching_filters(
            log_group_name=group.name
        ):
            matches = metric_filter.parse(filter_["filterPattern"])
            matching = [event for event in log_events if matches(event["message"])]
            for transformation in filter_["metricTransformations"]:
                if data := _metric_data(transformation, matching, log_events):
                    cloudwatch.put_metric_data(transformation["metricNamespace"], data)
        return token


def _metric_data(
    transformation: dict[str, Any], matching: list[dict[str, Any]], events: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """PutMetricData entries: one a matching event, else the default value once where there is one."""
    data = []
    for event in matching:
        value = transformation["metricValue"]
        if value.startswith("$"):
            value = metric_filter.select(event["message"], value)
        try:
            data.append(_datum(transformation, float(value), event))
        except (TypeError, ValueError):
            continue  # AWS publishes nothing where the field is no number
    if not matching and events and transformation.get("defaultValue") is not None:
        data.append(_datum(transformation, float(transformation["defaultValue"]), None) | _at_time(events[-1]))
    return data


def _datum(transformation: dict[str, Any], value: float, event: dict[str, Any] | None) -> dict[str, Any]:
    dimensions = [
        {"Name": name, "Value": str(metric_filter.select(event["message"], selector))}
        for name, selector in (transformation.get("dimensions") or {}).items()
        if event
    ]
    datum = {"MetricName": transformation["metricName"], "Value": value, "Dimensions": dimensions}
    if transformation.get("unit", "None") != "None":
        datum["Unit"] = transformation["unit"]
    return datum | (_at_time(event) if event else {})


def _at_time(event: dict[str, Any]) -> dict[str, Any]:
    return {"Timestamp": utcfromtimestamp(event["timestamp"] / 1000)}
