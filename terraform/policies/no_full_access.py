"""checkov reads what a policy says (CKV_AWS_62 and others), not what an attached managed policy is called."""

from __future__ import annotations

import re
from typing import Any

from checkov.common.models.enums import CheckCategories, CheckResult
from checkov.terraform.checks.resource.base_resource_check import BaseResourceCheck

TOO_MUCH = re.compile(r"(FullAccess|AdministratorAccess|PowerUserAccess)[\w.-]*$")
ATTRIBUTES = {
    "aws_iam_group_policy_attachment": "policy_arn",
    "aws_iam_policy_attachment": "policy_arn",
    "aws_iam_role": "managed_policy_arns",
    "aws_iam_role_policy_attachment": "policy_arn",
    "aws_iam_role_policy_attachments_exclusive": "policy_arns",
    "aws_iam_user_policy_attachment": "policy_arn",
}


class NoFullAccess(BaseResourceCheck):
    def __init__(self) -> None:
        super().__init__(
            name="No managed policy that grants all of a service, or of the account, is attached",
            id="CKV_IC_1",
            categories=[CheckCategories.IAM],
            supported_resources=list(ATTRIBUTES),
        )

    def scan_resource_conf(self, conf: dict[str, Any]) -> CheckResult:
        found = flat(conf.get(ATTRIBUTES[self.entity_type]))
        return CheckResult.FAILED if any(TOO_MUCH.search(str(arn)) for arn in found) else CheckResult.PASSED


def flat(found: Any) -> list[Any]:
    """checkov puts lists around lists."""
    return [inner for outer in found for inner in flat(outer)] if isinstance(found, list) else [found]


check = NoFullAccess()
