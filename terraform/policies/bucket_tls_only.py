"""checkov looks for such a policy on buckets with an ACL only (CKV_AWS_379)."""

from __future__ import annotations

import json
from typing import Any

from checkov.common.models.enums import CheckCategories, CheckResult
from checkov.terraform.checks.resource.base_resource_check import BaseResourceCheck
from named import known, resources, value


class BucketTlsOnly(BaseResourceCheck):
    def __init__(self) -> None:
        super().__init__(
            name="A bucket's policy denies everybody everything without TLS",
            id="CKV_IC_7",
            categories=[CheckCategories.NETWORKING],
            supported_resources=["aws_s3_bucket"],
        )

    def scan_resource_conf(self, conf: dict[str, Any]) -> CheckResult:
        if (name := value(conf, "bucket")) is None:
            return CheckResult.UNKNOWN
        policies = [known(resource.get("policy")) for resource in resources(self.graph, "aws_s3_bucket_policy")]
        needed = {f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"}
        if any(needed <= denied_without_tls(policy) for policy in policies if policy):
            return CheckResult.PASSED
        return CheckResult.UNKNOWN if None in policies else CheckResult.FAILED


def denied_without_tls(policy: str | dict[str, Any]) -> set[str]:
    """Resources, of the partition aws, that nobody reaches without TLS."""
    statements = (json.loads(policy) if isinstance(policy, str) else policy).get("Statement", [])
    return {
        ":".join(["arn", "aws", *resource.split(":")[2:]])
        for statement in listed(statements)
        if statement.get("Effect") == "Deny"
        and statement.get("Principal") in ("*", {"AWS": "*"}, {"AWS": ["*"]})
        and listed(statement.get("Action")) == ["s3:*"]
        and statement.get("Condition") in ({"Bool": {"aws:SecureTransport": no}} for no in ("false", ["false"], False))
        for resource in listed(statement.get("Resource"))
    }


def listed(found: Any) -> list[Any]:
    """IAM writes a list of one as the one."""
    return found if isinstance(found, list) else [found]


check = BucketTlsOnly()
