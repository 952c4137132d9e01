"""$LATEST is whatever was uploaded last: whoever may update the code changes at once what every caller runs."""

from __future__ import annotations

from typing import Any

from checkov.common.models.enums import CheckCategories, CheckResult
from checkov.terraform.checks.resource.base_resource_check import BaseResourceCheck
from named import value

LATEST = "$LATEST"
QUALIFIED = [
    "aws_lambda_function_event_invoke_config",
    "aws_lambda_function_url",
    "aws_lambda_permission",
    "aws_lambda_provisioned_concurrency_config",
]


class NoLatest(BaseResourceCheck):
    def __init__(self) -> None:
        super().__init__(
            name="What is invoked is a published version of the function, never $LATEST",
            id="CKV_IC_6",
            categories=[CheckCategories.GENERAL_SECURITY],
            supported_resources=[*QUALIFIED, "aws_lambda_alias", "aws_lambda_event_source_mapping"],
        )

    def scan_resource_conf(self, conf: dict[str, Any]) -> CheckResult:
        if self.entity_type == "aws_lambda_event_source_mapping":
            latest = str(value(conf, "function_name")).endswith(f":{LATEST}")
        elif self.entity_type == "aws_lambda_alias":
            latest = value(conf, "function_version") == LATEST
        else:
            # Without a qualifier it is $LATEST too. One that is known after apply is a reference, and not the word.
            written = conf.get("qualifier", [None])
            latest = written in (None, [None], [], [LATEST])
        return CheckResult.FAILED if latest else CheckResult.PASSED


check = NoLatest()
