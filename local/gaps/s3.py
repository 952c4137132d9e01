"""S3 gaps of moto 5.2.5: bucket policies' conditions and refusals, access logging by bucket policy, delete markers."""

import json
import re
from fnmatch import fnmatchcase
from typing import Any

from flask import has_request_context, request
from moto.iam.access_control import IAMPolicy, PermissionResult
from moto.s3.exceptions import S3AccessDeniedError
from moto.s3.models import FakeBucket, FakeDeleteMarker
from moto.s3.responses import S3Response

from local.gaps.patch import adds, around


def fill() -> None:
    _bucket_policy_conditions()
    _denied_objects()
    _access_logging_by_policy()
    _deleted_delete_markers()


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _bucket_policy_conditions() -> None:
    """Object calls under a bucket policy: moto ignores Condition, so a TLS-only Deny denies everything, and it ignores
    who the principal is. Here a statement counts when its principal is everybody or this account and its conditions
    hold. The loopback connection stands in for TLS."""

    @adds(FakeBucket)
    def get_permission(bucket: FakeBucket, action: str, resource: str) -> PermissionResult:
        if bucket.policy is None:
            return PermissionResult.NEUTRAL
        statements = [
            statement
            for statement in _as_list(json.loads(bucket.policy)["Statement"])
            if _names_caller(statement.get("Principal", "*"), bucket.account_id)
            and conditions_hold(statement.get("Condition", {}), _request_context(bucket.account_id))
        ]
        without = ("Principal", "Condition")
        document = {"Statement": [{k: v for k, v in s.items() if k not in without} for s in statements]}
        return IAMPolicy(json.dumps(document)).is_action_permitted(action, resource)


def _denied_objects() -> None:
    """Object calls: what a bucket policy denies is a 403 without AWS's code, AccessDenied."""

    @around(S3Response)
    def _key_response(original: Any, response: S3Response, *arguments: Any) -> Any:
        answer = original(response, *arguments)
        if answer == (403, {}, ""):
            raise S3AccessDeniedError()
        return answer


def _names_caller(principal: Any, account_id: str) -> bool:
    if principal == "*":
        return True
    named = _as_list(principal.get("AWS", []))
    return any(name in ("*", account_id) or name.endswith(f":{account_id}:root") for name in named)


def _request_context(account_id: str) -> dict[str, str]:
    context = {
        "aws:securetransport": "true",
        "s3:tlsversion": "1.3",
        "aws:principalaccount": account_id,
        "aws:principalisawsservice": "false",
    }
    if has_request_context():
        context |= {f"s3:{name.lower()}": value for name, value in request.headers if name.lower().startswith("x-amz-")}
    return context


def conditions_hold(conditions: dict[str, dict[str, Any]], context: dict[str, str]) -> bool:
    """Whether an IAM Condition block holds for a request whose keys (in lower case) and values are `context`.

    Raises NotImplementedError for an operator outside the string, ARN, Bool, Numeric and Null families.
    """
    return all(
        _operator_holds(operator, context.get(key.lower()), [str(value) for value in _as_list(values)])
        for operator, block in conditions.items()
        for key, values in block.items()
    )


def _operator_holds(operator: str, actual: str | None, values: list[str]) -> bool:
    name = operator.removesuffix("IfExists")
    if name == "Null":
        return (actual is None) == (values[0].lower() == "true")
    comparisons = {
        "StringEquals": str.__eq__,
        "StringEqualsIgnoreCase": lambda a, v: a.lower() == v.lower(),
        "StringLike": fnmatchcase,
        "ArnEquals": fnmatchcase,
        "ArnLike": fnmatchcase,
        "Bool": lambda a, v: a.lower() == v.lower(),
        "NumericEquals": lambda a, v: float(a) == float(v),
        "NumericLessThan": lambda a, v: float(a) < float(v),
        "NumericLessThanEquals": lambda a, v: float(a) <= float(v),
        "NumericGreaterThan": lambda a, v: float(a) > float(v),
        "NumericGreaterThanEquals": lambda a, v: float(a) >= float(v),
    }
    positive = re.sub(r"^(String|Arn|Numeric)Not", r"\1", name)
    if positive not in comparisons:
        raise NotImplementedError(f"the bucket policy condition operator {operator}")
    negated = positive != name
    if actual is None:
        # IAM: a missing key fails a positive operator, and satisfies a negated or an IfExists one.
        return negated or name != operator
    return any(comparisons[positive](actual, value) for value in values) != negated


def _access_logging_by_policy() -> None:
    """PutBucketLogging: a 500 where any Principal is the string "*", and only one exact Resource is understood."""

    @adds(FakeBucket)
    @staticmethod
    def _log_permissions_enabled_policy(target_bucket: FakeBucket, target_prefix: str | None) -> bool:
        if not target_bucket.policy:
            return False
        delivered = f"{target_bucket.arn}/{target_prefix or ''}2026-01-01-00-00-00-0123456789ABCDEF"
        return any(
            statement["Effect"] == "Allow"
            and isinstance(statement.get("Principal"), dict)
            and "logging.s3.amazonaws.com" in _as_list(statement["Principal"].get("Service", []))
            and any(fnmatchcase("s3:PutObject", action) for action in _as_list(statement.get("Action", [])))
            and any(fnmatchcase(delivered, resource) for resource in _as_list(statement.get("Resource", [])))
            for statement in _as_list(json.loads(target_bucket.policy)["Statement"])
        )


def _deleted_delete_markers() -> None:
    """DeleteObjects: fails for a delete marker where versioning is suspended, which Terraform's destroy does first."""

    @adds(FakeDeleteMarker)
    def dispose(marker: FakeDeleteMarker) -> None:
        """It has no content."""
