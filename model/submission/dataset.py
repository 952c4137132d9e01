"""Upload a data folder to datasets/<name>/ in the artifact bucket, with a manifest as its commit marker.

    datasets/<name>/<relative path>      the files
    datasets/<name>/manifest.json        {"files": {relative path: {"sha256", "bytes"}}}, uploaded last

Whoever reads a data set may take the manifest's presence for its completeness. An interrupted upload goes on where
it stopped: a file is skipped where the manifest, or the object's own metadata, has its hash and size.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError
from classifier.mistake import Mistake

MANIFEST = "manifest.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
PARALLEL_UPLOADS = 16
READ_BYTES = 1 << 20
# Files are uploaded side by side, so that parts need not be.
ONE_THREAD_A_FILE = TransferConfig(use_threads=False)


def upload_dataset(
    s3, folder: Path, bucket: str, name: str, kms_key_arn: str, progress: Callable[[int, int], None]
) -> str:
    """Upload what the folder has and the bucket has not, then the manifest; return the data set's S3 URI.

    s3: a boto3 client. progress: called with (files done, files in all) after each file.
    Raises Mistake for an unusable folder or name, and where the bucket holds files under this name that the folder
    has not: a training job would take them in.
    """
    if not NAME.fullmatch(name):
        raise Mistake(f"--dataset {name!r}: use letters, digits, '.', '_' and '-', beginning with a letter or digit")
    files = list_files(folder)
    prefix = f"datasets/{name}/"
    present = list_objects(s3, bucket, prefix)
    if foreign := present.keys() - files.keys() - {MANIFEST}:
        raise Mistake(
            f"s3://{bucket}/{prefix} already has {len(foreign)} files that {folder} has not, {min(foreign)} for one: "
            "give another --dataset name, or delete them"
        )
    manifest = read_manifest(s3, bucket, prefix) if MANIFEST in present else {}
    encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key_arn}

    def upload(relative: str) -> dict:
        path = files[relative]
        entry = {"sha256": sha256_of(path), "bytes": path.stat().st_size}
        if present.get(relative) == entry["bytes"] and (
            manifest.get(relative) == entry or stored_sha256(s3, bucket, prefix + relative) == entry["sha256"]
        ):
            return entry
        extra = {**encryption, "Metadata": {"sha256": entry["sha256"]}}
        s3.upload_file(str(path), bucket, prefix + relative, ExtraArgs=extra, Config=ONE_THREAD_A_FILE)
        return entry

    entries = {}
    with ThreadPoolExecutor(PARALLEL_UPLOADS) as pool:
        try:
            for relative, entry in zip(files, pool.map(upload, files), strict=True):
                entries[relative] = entry
                progress(len(entries), len(files))
        except BaseException:
            # Ctrl-C or a refusal: what is under way ends, the thousands behind it do not begin.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if entries != manifest:
        body = json.dumps({"files": entries}, indent=1, sort_keys=True).encode()
        s3.put_object(Bucket=bucket, Key=prefix + MANIFEST, Body=body, ContentType="application/json", **encryption)
    return f"s3://{bucket}/{prefix}"


def list_files(folder: Path) -> dict[str, Path]:
    """Relative POSIX path to path, sorted, of the folder's files but hidden ones; Mistake where there are none."""
    if not folder.is_dir():
        raise Mistake(f"--data {folder}: no such folder")
    paths = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    visible = {relative.as_posix(): path for relative, path in paths.items() if not hidden(relative)}
    visible.pop(MANIFEST, None)
    if not visible:
        raise Mistake(f"--data {folder}: no files in it; it should hold class folders, or train, valid and test")
    return dict(sorted(visible.items()))


def hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)


def list_objects(s3, bucket: str, prefix: str) -> dict[str, int]:
    """Key relative to the prefix to size in bytes."""
    pages: Iterator[dict] = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return {item["Key"].removeprefix(prefix): item["Size"] for page in pages for item in page.get("Contents", ())}


def read_manifest(s3, bucket: str, prefix: str) -> dict[str, dict]:
    """The stored manifest's files; empty where it is no manifest, so that everything is compared by its metadata."""
    try:
        return dict(json.load(s3.get_object(Bucket=bucket, Key=prefix + MANIFEST)["Body"])["files"])
    except (ValueError, KeyError, TypeError):
        return {}


def stored_sha256(s3, bucket: str, key: str) -> str | None:
    """The hash an earlier upload noted on the object. Its ETag would not do: under KMS it is no hash of the content."""
    try:
        return s3.head_object(Bucket=bucket, Key=key)["Metadata"].get("sha256")
    except ClientError as error:
        if error.response["Error"]["Code"] in ("404", "NoSuchKey", "NotFound"):
            return None
        raise


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()
