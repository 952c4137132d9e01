"""One instance is one zone: its loss is an outage (AWS's control SageMaker.4)."""

from __future__ import annotations

from typing import Any

from checkov.common.models.enums import CheckCategories, CheckResult
from checkov.terraform.checks.resource.base_resource_check import BaseResourceCheck
from named import resources, value

FEWEST = 2


def _in_prod(conf: dict[str, Any]) -> bool:
    tags = value(conf, "tags_all") or value(conf, "tags") or {}  # the provider's default tags are in a plan only
    return value(tags, "Environment") == "prod"


class TwoInstancesInProd(BaseResourceCheck):
    def __init__(self) -> None:
        super().__init__(
            name="In prod the endpoint has two instances at least, and is not scaled to fewer",
            id="CKV_IC_2",
            categories=[CheckCategories.GENERAL_SECURITY],
            supported_resources=[
                "aws_appautoscaling_scheduled_action",
                "aws_appautoscaling_target",
                "aws_sagemaker_endpoint_configuration",
            ],
        )

    def scan_resource_conf(self, conf: dict[str, Any]) -> CheckResult:
        scheduled = self.entity_type == "aws_appautoscaling_scheduled_action"
        # A scheduled action has no tags: its target's are its own.
        targets = resources(self.graph, "aws_appautoscaling_target") if scheduled else [conf]
        if not any(_in_prod(target) for target in targets):
            return CheckResult.UNKNOWN
        if self.entity_type != "aws_sagemaker_endpoint_configuration":
            if value(conf, "service_namespace") != "sagemaker":
                return CheckResult.UNKNOWN
            counts = [value(value(conf, "scalable_target_action") or {} if scheduled else conf, "min_capacity")]
        else:
            counts = [
                value(variant, "initial_instance_count")
                for variant in conf.get("production_variants", [])
                if isinstance(variant, dict) and not value(variant, "serverless_config")
            ]
        known = [int(count) for count in counts if count is not None]
        if not known:
            return CheckResult.UNKNOWN
        return CheckResult.PASSED if min(known) >= FEWEST else CheckResult.FAILED


check = TwoInstancesInProd()
