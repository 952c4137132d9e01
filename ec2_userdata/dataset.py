"""A data set out of the artifact bucket, each file checked against the manifest that was uploaded last."""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from botocore.exceptions import ClientError

THREADS = 10  # botocore's connection pool


class DatasetError(Exception):
    """The data set in the bucket is missing, incomplete or not what its manifest says; the message is one line."""


def download(s3, bucket: str, name: str, folder: Path) -> int:
    """Bring datasets/<name>/ to `folder`, without its manifest, and return the number of files.

    Files that are there already, whole, are not fetched again. Raises DatasetError.
    """
    prefix = f"datasets/{name}/"
    manifest = f"s3://{bucket}/{prefix}manifest.json"
    try:
        files = json.loads(_get(s3, bucket, prefix + "manifest.json"))["files"]
        hashes = {path: entry["sha256"] for path, entry in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DatasetError(f"{manifest} is no manifest: upload the data set again") from None
    if not hashes:
        raise DatasetError(f"{manifest} is no manifest of anything: upload the data set again")
    for path in hashes:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise DatasetError(f"{manifest} names {path!r}, which leads out of the data set")

    def fetch(item: tuple[str, str]) -> None:
        path, expected = item
        target = folder / path
        if target.is_file() and _sha256(target.read_bytes()) == expected:
            return
        content = _get(s3, bucket, prefix + path)
        if _sha256(content) != expected:
            raise DatasetError(f"s3://{bucket}/{prefix}{path} is not what the manifest says: upload the data set again")
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        part.write_bytes(content)
        os.replace(part, target)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(fetch, hashes.items()))
    return len(hashes)


def _get(s3, bucket: str, key: str) -> bytes:
    try:
        return s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    except ClientError as error:
        # Without ListBucket a missing object is an AccessDenied too: both are named, throttling and the like pass on.
        if error.response["Error"]["Code"] in ("NoSuchKey", "AccessDenied"):
            remedy = "run model/submit.py --data, or let the caller's role read it"
            raise DatasetError(f"s3://{bucket}/{key} cannot be read ({error}): {remedy}") from None
        raise


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
