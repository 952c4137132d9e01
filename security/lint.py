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
    from parliament.statement import GLOBAL_CONDITION_KEYS, is_arn_strictly_valid

# In every call of a function's own code, of whatever service: parliament looks for it among each action's keys alone.
# https://docs.aws.amazon.com/lambda/latest/dg/permissions-source-function-arn.html
GLOBAL_CONDITION_KEYS["lambda:SourceFunctionArn"] = "Arn"

IN_ANOTHER = ", and another statement has it"


@dataclass(frozen=True)
class Explained:
    """A finding that is none: its kind, where and what it says, and why it does not hold."""

    issue: str
    document: str
    detail: str
    reason: str


EXPLAINED = (
    Explained(
        "RESOURCE_MISMATCH",
        "arn:aws:kms:",
        "'kms:CreateKey'",
        "kms:* of the key leaves it to IAM, as AWS's own default does; what is of no key is not granted by it: "
        "https://docs.aws.amazon.com/kms/latest/developerguide/key-policy-default.html",
    ),
)


def findings(policies: Mapping[str, Policy]) -> list[tuple[str, str, str]]:
    """parliament's findings: (document, kind, detail). It knows no trust policies, and these are left out."""
    return [
        (document, finding.issue, _detail(policy, finding))
        for document, policy in policies.items()
        if not document.startswith("trust ")
        for finding in parliament.analyze_policy_string(json.dumps(_spelt_out(document, policy))).findings
    ]


def _spelt_out(document: str, policy: Policy) -> Policy:
    """A key's own policy says * for that key, where parliament, which reads identities' policies, sees every key."""
    if not document.startswith("arn:aws:kms:"):
        return policy
    key = {"*": document}
    statements = [{**one, "Resource": key.get(one["Resource"], one["Resource"])} for one in policy["Statement"]]
    return {**policy, "Statement": statements}


def _detail(policy: Policy, finding: parliament.finding.Finding) -> str:
    """What it says; and, of a kind of resource that it misses in a statement, whether another statement has it."""
    elsewhere = finding.issue == "RESOURCE_MISMATCH" and all(
        _allowed(policy, missed["action"], missed["required_format"]) for missed in finding.detail
    )
    return f"{finding.detail}{IN_ANOTHER if elsewhere else ''}"


def _allowed(policy: Policy, action: str, kind: str) -> bool:
    """Whether a statement allows the action on resources of a kind."""
    return any(
        is_arn_strictly_valid("", kind, resource)
        for statement in policy["Statement"]
        if statement["Effect"] == "Allow" and action in listed(statement["Action"])
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
