"""A release: a model archive in the artifact bucket under the name of its own content."""

import hashlib
import json
from pathlib import Path

from botocore.exceptions import ClientError

from classifier.mistake import Mistake


def publish(s3, archive: Path, bucket: str, kms_key_arn: str | None = None) -> str:
    """Upload an archive and then the manifest beside it; returns the key `releases/<sha256>/model.tar.gz`.

    s3: a boto3 S3 client. The manifest is the commit mark: a release without it is not whole. What is there already,
    under the same content, is not uploaded again. kms_key_arn: None leaves encryption to the bucket's default.
    Raises Mistake where the archive and its manifest do not belong together, ClientError where S3 refuses.
    """
    manifest_file = archive.with_name("manifest.json")
    for file in (archive, manifest_file):
        if not file.is_file():
            raise Mistake(f"{file} is missing; train.py --archive {archive} writes it")
    digest = _sha256(archive)
    recorded = json.loads(manifest_file.read_bytes()).get("archive", {}).get("sha256")
    if recorded != digest:
        raise Mistake(f"{manifest_file} belongs to another archive: it says {recorded}, {archive} has {digest}")
    encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key_arn} if kms_key_arn else {}
    key, manifest_key = f"releases/{digest}/model.tar.gz", f"releases/{digest}/manifest.json"
    if not exists(s3, bucket, manifest_key):
        s3.upload_file(str(archive), bucket, key, ExtraArgs=encryption)
        s3.put_object(Bucket=bucket, Key=manifest_key, Body=manifest_file.read_bytes(), **encryption)
    return key


def exists(s3, bucket: str, key: str) -> bool:
    """Whether the bucket has the object, as far as one may know."""
    try:
        s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        # 403 is S3's answer for an absent key to whom may not list the bucket; a true refusal shows on upload.
        if error.response["ResponseMetadata"]["HTTPStatusCode"] in (403, 404):
            return False
        raise
    return True


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
