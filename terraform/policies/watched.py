"""An alarm for what serves, and for what its log says; checkov knows neither."""

from __future__ import annotations

from typing import Any

from checkov.common.models.enums import CheckCategories, CheckResult
from checkov.terraform.checks.resource.base_resource_check import BaseResourceCheck
from named import known, resources, value

# Kind -> the dimension of its metrics, the attribute that it is, and the metric of its errors.
ERRORS = {
    "aws_lambda_function": ("FunctionName", "function_name", "Errors"),
    "aws_sagemaker_endpoint": ("EndpointName", "name", "Invocation5XXErrors"),
}


class Watched(BaseResourceCheck):
    def __init__(self) -> None:
        super().__init__(
            name="Alarms watch the errors of the endpoint and of the function, and a metric filter the function's log",
            id="CKV_IC_8",
            categories=[CheckCategories.LOGGING],
            supported_resources=list(ERRORS),
        )

    def scan_resource_conf(self, conf: dict[str, Any]) -> CheckResult:
        dimension, attribute, metric = ERRORS[self.entity_type]
        if (name := value(conf, attribute)) is None:
            return CheckResult.UNKNOWN
        alarms = list(resources(self.graph, "aws_cloudwatch_metric_alarm"))
        filters = list(resources(self.graph, "aws_cloudwatch_log_metric_filter"))
        watched = any(
            alarm.get("metric_name") == metric and (alarm.get("dimensions") or {}).get(dimension) == name
            for alarm in alarms
        )
        if self.entity_type == "aws_lambda_function":
            group = f"/aws/lambda/{name}"
            watched &= any(found.get("log_group_name") == group and raises_alarm(found, alarms) for found in filters)
        if watched:
            return CheckResult.PASSED
        unclear = [known(alarm.get("metric_name")) for alarm in alarms]
        unclear += [known(found.get("log_group_name")) for found in filters]
        return CheckResult.UNKNOWN if None in unclear else CheckResult.FAILED


def raises_alarm(filtered: dict[str, Any], alarms: list[dict[str, Any]]) -> bool:
    """Whether an alarm watches the metric of a filter."""
    metric = filtered.get("metric_transformation") or {}
    return any(
        (alarm.get("namespace"), alarm.get("metric_name")) == (metric.get("namespace"), metric.get("name"))
        for alarm in alarms
    )


check = Watched()
