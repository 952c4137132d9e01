"""One instance is one zone: its loss is an outage (AWS's control SageMaker.4)."""

from __future__ import annotations

from typing import Any

from checkov.common.models.enums import CheckCategories, CheckResult
from checkov.terraform.checks.resource.base_resource_check import BaseResourceCheck
from named import value

FEWEST = 2


class TwoInstancesInProd(BaseResourceCheck):
    def __init__(self) -> None:
        super().__init__(
            name="In prod the endpoint has two instances at least, and is not scaled to fewer",
            id="CKV_IC_2",
            categories=[CheckCategories.GENERAL_SECURITY],
            supported_resources=["aws_appautoscaling_target", "aws_sagemaker_endpoint_configuration"],
        )

    def scan_resource_conf(self, conf: dict[str, Any]) -> CheckResult:
        tags = value(conf, "tags_all") or value(conf, "tags") or {}  # the provider's default tags are in a plan only
        if value(tags, "Environment") != "prod":
            return CheckResult.UNKNOWN
        if self.entity_type == "aws_appautoscaling_target":
            if value(conf, "service_namespace") != "sagemaker":
                return CheckResult.UNKNOWN
            counts = [value(conf, "min_capacity")]
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
