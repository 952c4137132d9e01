"""What is wrong with a policy on its face: parliament's findings, cloudsplaining's ways to more rights."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from cloudsplaining.scan.policy_document import PolicyDocument

from security.plan import Policy, listed

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "pkg_resources is deprecated")
    import parliament
    from parliament.statement import is_arn_strictly_valid


@dataclass(frozen=True)
class Explained:
    """A finding that is none: its kind, where and what it says, and why it does not hold."""

    issue: str
    document: str
    detail: str
    reason: str


EXPLAINED = (
    Explained(
        "UNKNOWN_CONDITION_FOR_ACTION",
        "role lambda",
        "lambda:SourceFunctionArn",
        "in every call of a function's code: https://docs.aws.amazon.com/lambda/latest/dg/permissions-source-function-arn.html",
    ),
)


def findings(policies: Mapping[str, Policy]) -> list[tuple[str, str, str]]:
    """parliament's findings: (document, kind, detail). It knows no trust policies, and these are left out."""
    return [
        (document, finding.issue, str(finding.detail))
        for document, policy in policies.items()
        if not document.startswith("trust ")
        for finding in parliament.analyze_policy_string(json.dumps(policy)).findings
        if _holds(document, policy, finding)
    ]


def _holds(document: str, policy: Policy, finding: parliament.finding.Finding) -> bool:
    """Whether a finding holds as AWS reads the policy. parliament reads an identity's, a statement at a time."""
    match finding.issue:
        case "RESOURCE_STAR":
            return not document.startswith("arn:aws:kms:")  # in a key's own policy * is that key
        case "RESOURCE_MISMATCH":
            return not all(_is_elsewhere(policy, **missed) for missed in finding.detail)
    return True


def _is_elsewhere(policy: Policy, action: str, required_format: str) -> bool:
    """Whether another statement allows the action on the kind of resource that parliament misses in one."""
    return any(
        is_arn_strictly_valid("", required_format, resource)
        for statement in policy["Statement"]
        if action in listed(statement["Action"])
        for resource in listed(statement["Resource"])
        if resource != "*"
    )


def unexplained(found: list[tuple[str, str, str]], explanations: tuple[Explained, ...] = EXPLAINED) -> list[str]:
    """The findings that stand, and the explanations that explain nothing any more."""
    left, used = [], set()
    for document, issue, detail in found:
        matching = [e for e in explanations if e.issue == issue and _matches(e, document, detail)]
        used.update(matching)
        if not matching:
            left.append(f"{document}: {issue} {detail}")
    return left + [f"no finding for: {explained.reason}" for explained in explanations if explained not in used]


def _matches(explained: Explained, document: str, detail: str) -> bool:
    return bool(re.match(explained.document, document) and re.search(explained.detail, detail))


def escalations(policies: Mapping[str, Policy]) -> list[str]:
    """What cloudsplaining says a role could do to get more than it has, or to carry off what it should not."""
    found = []
    for document, policy in policies.items():
        if document.startswith("role "):
            scanned = PolicyDocument(policy)
            ways = {
                "privilege escalation": scanned.allows_privilege_escalation,
                "data exfiltration": scanned.allows_data_exfiltration_actions,
                "resource exposure": scanned.permissions_management_without_constraints,
                "service wildcard": scanned.service_wildcard,
            }
            found += [f"{document}: {way}: {what}" for way, what in ways.items() if what]
    return found
