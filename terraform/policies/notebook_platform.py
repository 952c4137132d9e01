"""A platform that AWS no longer supports gets no security fixes (AWS's control SageMaker.8)."""

from __future__ import annotations

from typing import Any

from checkov.common.models.enums import CheckCategories, CheckResult
from checkov.terraform.checks.resource.base_resource_check import BaseResourceCheck
from named import value

SUPPORTED = "notebook-al2023-"


class NotebookPlatform(BaseResourceCheck):
    def __init__(self) -> None:
        super().__init__(
            name="The notebook is on a platform that AWS supports",
            id="CKV_IC_3",
            categories=[CheckCategories.GENERAL_SECURITY],
            supported_resources=["aws_sagemaker_notebook_instance"],
        )

    def scan_resource_conf(self, conf: dict[str, Any]) -> CheckResult:
        platform = value(conf, "platform_identifier")  # SageMaker's own default is the newest
        return CheckResult.PASSED if platform is None or platform.startswith(SUPPORTED) else CheckResult.FAILED


check = NotebookPlatform()
