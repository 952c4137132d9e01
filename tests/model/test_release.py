"""Publishing a release, against moto's S3."""

from __future__ import annotations

import hashlib
import shutil

import boto3
import pytest
from botocore.exceptions import ClientError
from classifier.mistake import Mistake
from classifier.release import publish
from moto import mock_aws

KEY_ARN = "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000"


@pytest.fixture
def s3():
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="artifacts")
        client.put_bucket_versioning(Bucket="artifacts", VersioningConfiguration={"Status": "Enabled"})
        yield client


def versions(s3) -> list[str]:
    return sorted(entry["Key"] for entry in s3.list_object_versions(Bucket="artifacts").get("Versions", []))


def test_a_release_is_named_by_its_content_and_publishing_again_changes_nothing(s3, trained):
    digest = hashlib.sha256(trained.archive.read_bytes()).hexdigest()
    for _ in range(2):
        assert publish(s3, trained.archive, "artifacts", KEY_ARN) == f"releases/{digest}/model.tar.gz"
    assert versions(s3) == [f"releases/{digest}/manifest.json", f"releases/{digest}/model.tar.gz"]
    for key in versions(s3):
        head = s3.head_object(Bucket="artifacts", Key=key)
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", KEY_ARN)
    body = s3.get_object(Bucket="artifacts", Key=f"releases/{digest}/model.tar.gz")["Body"].read()
    assert body == trained.archive.read_bytes()


@pytest.mark.fault
def test_a_release_cut_off_before_its_manifest_is_completed(s3, trained):
    key = publish(s3, trained.archive, "artifacts")
    s3.delete_object(Bucket="artifacts", Key=key.replace("model.tar.gz", "manifest.json"))
    publish(s3, trained.archive, "artifacts")
    s3.head_object(Bucket="artifacts", Key=key.replace("model.tar.gz", "manifest.json"))


@pytest.mark.fault
def test_an_archive_that_is_not_its_manifests_is_refused(s3, trained, tmp_path):
    for file in trained.archive.parent.iterdir():
        shutil.copy(file, tmp_path)
    with (tmp_path / "model.tar.gz").open("ab") as archive:
        archive.write(b"x")
    with pytest.raises(Mistake, match="belongs to another archive"):
        publish(s3, tmp_path / "model.tar.gz", "artifacts")
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(Mistake, match=r"manifest\.json is missing"):
        publish(s3, tmp_path / "model.tar.gz", "artifacts")
    assert versions(s3) == []


@pytest.mark.fault
def test_a_bucket_that_is_not_there_is_reported(s3, trained):
    with pytest.raises((ClientError, boto3.exceptions.S3UploadFailedError)):
        publish(s3, trained.archive, "elsewhere")
