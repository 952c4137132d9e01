"""The API calls that a run in the local account recorded, held against what the matrix says each role must do.

The account knows a workload by its access key, which is the role's name, as its credentials are the role's on AWS.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from security.matrix import Row

# IAM's action where it has another name than the operation: https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
ACTIONS = {
    "lambda:Invoke": "lambda:InvokeFunction",
    "s3:CompleteMultipartUpload": "s3:PutObject",
    "s3:CreateMultipartUpload": "s3:PutObject",
    "s3:DeleteBucketEncryption": "s3:PutEncryptionConfiguration",
    "s3:DeleteBucketLifecycle": "s3:PutLifecycleConfiguration",
    "s3:DeleteBucketOwnershipControls": "s3:PutBucketOwnershipControls",
    "s3:DeleteBucketTagging": "s3:PutBucketTagging",
    "s3:DeleteObjects": "s3:DeleteObject",
    "s3:DeletePublicAccessBlock": "s3:PutBucketPublicAccessBlock",
    "s3:GetBucketAccelerateConfiguration": "s3:GetAccelerateConfiguration",
    "s3:GetBucketEncryption": "s3:GetEncryptionConfiguration",
    "s3:GetBucketLifecycleConfiguration": "s3:GetLifecycleConfiguration",
    "s3:GetBucketReplication": "s3:GetReplicationConfiguration",
    "s3:GetObjectLockConfiguration": "s3:GetBucketObjectLockConfiguration",
    "s3:GetPublicAccessBlock": "s3:GetBucketPublicAccessBlock",
    "s3:HeadBucket": "s3:ListBucket",
    "s3:HeadObject": "s3:GetObject",
    "s3:ListObjectVersions": "s3:ListBucketVersions",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:PutBucketEncryption": "s3:PutEncryptionConfiguration",
    "s3:PutBucketLifecycleConfiguration": "s3:PutLifecycleConfiguration",
    "s3:PutPublicAccessBlock": "s3:PutBucketPublicAccessBlock",
    "s3:UploadPart": "s3:PutObject",
}
# A service where it signs with another name than IAM's.
SERVICES = {"monitoring": "cloudwatch"}


def recorded_actions(calls: Path, roles: Iterable[str]) -> dict[str, set[str]]:
    """IAM actions that each of the roles took, by role; a role that made no call is not in it.

    calls: the local account's calls.jsonl. Raises ValueError for a line that is none of its.
    """
    known, found = set(roles), defaultdict(set)
    for number, line in enumerate(calls.read_text().splitlines(), start=1):
        try:
            call = json.loads(line)
            role, service, operation = call["access_key"], call["service"], call["action"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{calls} line {number}: not a recorded call: {line[:80]!r}") from error
        if role in known:
            found[role].add(action(service, operation))
    return dict(found)


def action(service: str, operation: str) -> str:
    """IAM's action for an operation as the local account names it."""
    if service == "sagemaker" and re.fullmatch(r"POST /endpoints/[^/]+/invocations", operation):
        operation = "InvokeEndpoint"
    named = f"{SERVICES.get(service, service)}:{operation}"
    return ACTIONS.get(named, named)


def untabled(recorded: dict[str, set[str]], rows: list[Row]) -> list[str]:
    """Recorded actions that no must row of the role has."""
    must = {(row.table, row.action) for row in rows if row.allowed}
    return [
        f"{role}: {taken}" for role in sorted(recorded) for taken in sorted(recorded[role]) if (role, taken) not in must
    ]


def unrecorded(recorded: dict[str, set[str]], rows: list[Row]) -> list[str]:
    """Actions that the tables say this project's own code takes, of the roles that made calls, and that were not."""
    own = {(row.table, row.action) for row in rows if row.allowed and not row.page and row.table in recorded}
    return [f"{role}: {said}" for role, said in sorted(own) if said not in recorded[role]]
