"""Turn what a training job left in S3 into a release."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from botocore.exceptions import ClientError
from classifier.archive import pack, sha256
from classifier.release import publish

from submission.following import JobFailed


def release_archive(s3, archive_uri: str, bucket: str, kms_key_arn: str) -> str:
    """Publish a job's model.tar.gz under the name of its content; returns the key releases/<sha256>/model.tar.gz.

    SageMaker tars the model folder itself, with times and owners; it is packed anew, so that equal models get equal
    names. Raises JobFailed where the content is not what its manifest says.
    """
    source = urlsplit(archive_uri)
    with TemporaryDirectory() as scratch:
        downloaded, folder = Path(scratch, "downloaded.tar.gz"), Path(scratch, "model")
        try:
            s3.download_file(source.netloc, source.path.lstrip("/"), str(downloaded))
        except ClientError as error:
            raise JobFailed(f"{archive_uri} cannot be fetched: {error}") from error
        try:
            with tarfile.open(downloaded) as tar:
                tar.extractall(folder, filter="data")
            check_content(folder)
        except (tarfile.TarError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
            raise JobFailed(f"{archive_uri} is no model archive: {error}; look at the job's log") from error
        archive = Path(scratch, "release", "model.tar.gz")
        pack(folder, archive)
        return publish(s3, archive, bucket, kms_key_arn)


def check_content(folder: Path) -> None:
    """Compare an unpacked archive with its manifest; ValueError where a file differs, OSError where one is missing."""
    for name, digest in json.loads((folder / "manifest.json").read_bytes())["files"].items():
        if sha256((folder / name).read_bytes()) != digest:
            raise ValueError(f"{name} differs from the manifest")
