"""AWS refuses more provisioned than reserved concurrency in the middle of an apply; the provider plans it."""

from __future__ import annotations

from typing import Any

from checkov.common.models.enums import CheckCategories, CheckResult
from checkov.terraform.checks.resource.base_resource_check import BaseResourceCheck
from named import known, resources, value


class ProvisionedWithinReserved(BaseResourceCheck):
    def __init__(self) -> None:
        super().__init__(
            name="Provisioned concurrency is within the function's reserved concurrency",
            id="CKV_IC_5",
            categories=[CheckCategories.GENERAL_SECURITY],
            supported_resources=["aws_lambda_provisioned_concurrency_config"],
        )

    def scan_resource_conf(self, conf: dict[str, Any]) -> CheckResult:
        name, provisioned = value(conf, "function_name"), value(conf, "provisioned_concurrent_executions")
        if name is None or provisioned is None:
            return CheckResult.UNKNOWN
        for function in resources(self.graph, "aws_lambda_function"):
            reserved = known(function.get("reserved_concurrent_executions"))
            if function.get("function_name") == name and reserved is not None:
                unreserved = int(reserved) == -1
                return CheckResult.PASSED if unreserved or int(provisioned) <= int(reserved) else CheckResult.FAILED
        return CheckResult.UNKNOWN


check = ProvisionedWithinReserved()
