"""Outside a VPC a model's containers are in a network of SageMaker's, which no security group of ours guards."""

from __future__ import annotations

from typing import Any

from checkov.common.models.enums import CheckCategories, CheckResult
from checkov.terraform.checks.resource.base_resource_check import BaseResourceCheck


class ModelInVpc(BaseResourceCheck):
    def __init__(self) -> None:
        super().__init__(
            name="The model's containers are in subnets of the VPC",
            id="CKV_IC_4",
            categories=[CheckCategories.NETWORKING],
            supported_resources=["aws_sagemaker_model"],
        )

    def scan_resource_conf(self, conf: dict[str, Any]) -> CheckResult:
        inside = [block for block in conf.get("vpc_config", []) if isinstance(block, dict) and block.get("subnets")]
        return CheckResult.PASSED if inside else CheckResult.FAILED


check = ModelInVpc()
