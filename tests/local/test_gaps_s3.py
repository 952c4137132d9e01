"""The account's S3: bucket policies with conditions, access logging."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from local.account import Account
from local.gaps.s3 import conditions_hold

VALUES = st.sampled_from(["a", "b", "ab"])


def _policy(bucket: str, **statement: Any) -> str:
    resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Resource": resources, **statement}]})


def test_a_tls_only_policy_lets_the_account_in_and_a_plain_deny_does_not(control_plane: Account) -> None:
    s3 = control_plane.client("s3")
    s3.create_bucket(Bucket="conditions")
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:*"}
    tls_only = _policy("conditions", **deny, Condition={"Bool": {"aws:SecureTransport": "false"}})
    s3.put_bucket_policy(Bucket="conditions", Policy=tls_only)
    s3.put_object(Bucket="conditions", Key="k", Body=b"content")
    assert s3.get_object(Bucket="conditions", Key="k")["Body"].read() == b"content"

    s3.put_bucket_policy(Bucket="conditions", Policy=_policy("conditions", **deny))
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.get_object(Bucket="conditions", Key="k")


def test_a_policy_that_asks_for_encryption_headers(control_plane: Account) -> None:
    s3 = control_plane.client("s3")
    s3.create_bucket(Bucket="encrypted")
    policy = _policy(
        "encrypted",
        Effect="Deny",
        Principal={"AWS": "*"},
        Action="s3:PutObject",
        Condition={"StringNotEquals": {"s3:x-amz-server-side-encryption": "aws:kms"}},
    )
    s3.put_bucket_policy(Bucket="encrypted", Policy=policy)
    s3.put_object(Bucket="encrypted", Key="k", Body=b"", ServerSideEncryption="aws:kms")
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.put_object(Bucket="encrypted", Key="k", Body=b"")


def test_access_logging_needs_a_policy_for_the_logging_service(control_plane: Account) -> None:
    s3 = control_plane.client("s3")
    for bucket in ("logged", "logs"):
        s3.create_bucket(Bucket=bucket)
    logging = {"LoggingEnabled": {"TargetBucket": "logs", "TargetPrefix": "s3/"}}
    s3.put_bucket_policy(Bucket="logs", Policy=_policy("logs", Effect="Deny", Principal="*", Action="s3:DeleteBucket"))
    with pytest.raises(ClientError, match="InvalidTargetBucketForLogging"):
        s3.put_bucket_logging(Bucket="logged", BucketLoggingStatus=logging)

    allow = {"Effect": "Allow", "Principal": {"Service": "logging.s3.amazonaws.com"}, "Action": ["s3:PutObject"]}
    s3.put_bucket_policy(Bucket="logs", Policy=_policy("logs", **allow))
    s3.put_bucket_logging(Bucket="logged", BucketLoggingStatus=logging)
    assert s3.get_bucket_logging(Bucket="logged")["LoggingEnabled"]["TargetPrefix"] == "s3/"


@given(st.none() | VALUES, st.lists(VALUES, min_size=1))
def test_a_negated_operator_is_the_opposite_also_for_a_missing_key(actual: str | None, values: list[str]) -> None:
    context = {} if actual is None else {"aws:sourcevpce": actual}
    for operator in ("StringEquals", "StringLike", "ArnLike"):
        negated = operator.replace("String", "StringNot").replace("Arn", "ArnNot")
        holds = conditions_hold({operator: {"aws:SourceVpce": values}}, context)
        assert holds is (actual in values)
        assert conditions_hold({negated: {"aws:SourceVpce": values}}, context) is not holds
        assert conditions_hold({f"{operator}IfExists": {"aws:SourceVpce": values}}, context) is (
            holds or actual is None
        )
    assert conditions_hold({"Null": {"aws:SourceVpce": "true"}}, context) is (actual is None)


def test_all_blocks_of_a_condition_must_hold_and_unknown_operators_are_refused() -> None:
    context = {"aws:securetransport": "true", "s3:tlsversion": "1.3"}
    modern = {"Bool": {"aws:SecureTransport": "true"}, "NumericGreaterThanEquals": {"s3:TlsVersion": "1.2"}}
    assert conditions_hold(modern, context)
    assert not conditions_hold(modern | {"NumericLessThan": {"s3:TlsVersion": ["1.2"]}}, context)
    with pytest.raises(NotImplementedError, match="IpAddress"):
        conditions_hold({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, context)


def test_a_bucket_with_old_versions_and_delete_markers_is_emptied(control_plane: Account) -> None:
    s3 = control_plane.client("s3")
    s3.create_bucket(Bucket="versioned")
    s3.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    for body in (b"one", b"two"):
        s3.put_object(Bucket="versioned", Key="k", Body=body)
    s3.delete_object(Bucket="versioned", Key="k")
    listed = s3.list_object_versions(Bucket="versioned")
    objects = [{"Key": "k", "VersionId": each["VersionId"]} for each in listed["Versions"] + listed["DeleteMarkers"]]
    assert len(objects) == 3
    s3.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Suspended"})
    s3.delete_objects(Bucket="versioned", Delete={"Objects": objects})
    s3.delete_bucket(Bucket="versioned")
