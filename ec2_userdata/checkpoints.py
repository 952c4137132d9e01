"""Keeps a folder of checkpoints in S3: each file under its hash, and last the manifest that names them.

A sync that is cut short leaves the old manifest, and with it the old files, in force.
"""

import contextlib
import hashlib
import json
import os
import sqlite3
import tempfile
import time
from pathlib import Path

from botocore.exceptions import ClientError

SQLITE_HEADER = b"SQLite format 3\0"
SQLITE_SIDE_FILES = ("-wal", "-shm", "-journal")
# A database that grows all the time is copied this often, and whenever a checkpoint beside it is new.
DATABASE_SECONDS = 60.0


class Checkpoints:
    """A local folder and its copy below s3://bucket/prefix. s3: a boto3 client."""

    def __init__(self, s3, bucket: str, prefix: str, kms_key_arn: str, folder: Path) -> None:
        self._s3, self._bucket, self._prefix, self._folder = s3, bucket, prefix, folder
        self._encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key_arn}
        self._signatures: dict[str, tuple] = {}
        self._copied = -DATABASE_SECONDS
        self.manifest = self._load()

    def finished_by(self) -> str | None:
        """The instance that ended this run for good, as finish.py notes it, or None."""
        body = self._get("finished")
        return body.decode() if body is not None else None

    def restore(self) -> int:
        """Fill the folder from S3; returns the number of files: all of them, or none where one is not what it was."""
        fetched = {}
        for name, entry in self.manifest["files"].items():
            target = self._folder / name
            if self._folder.resolve() not in target.resolve().parents:
                raise ValueError(f"s3://{self._bucket}/{self._prefix}manifest.json names {name!r}: out of the folder")
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f".{target.name}.part")
            body = self._get(entry["sha256"])
            if body is None or _sha256(body) != entry["sha256"]:
                print(f"checkpoint {name} in S3 is not what its manifest says: starting without", flush=True)
                self.manifest["files"] = {}
                return 0
            part.write_bytes(body)
            fetched[part] = target
        for part, target in fetched.items():
            os.replace(part, target)
        return len(fetched)

    def sync(self, note: dict, *, everything: bool = False) -> bool:
        """Upload what changed, then a manifest with `note` in it; returns whether anything was uploaded.

        everything: databases too, however lately they were copied. Without a changed file the manifest stands as it is,
        unless `everything` is asked for.
        """
        files = dict(self.manifest["files"])
        signatures = {path: _signature(path) for path in self._paths()}
        changed = {path for path, found in signatures.items() if self._signatures.get(self._name(path)) != found}
        databases = {path for path in changed if _is_database(path)}
        if not everything and changed == databases and time.monotonic() - self._copied < DATABASE_SECONDS:
            changed = set()
        elif databases:
            self._copied = time.monotonic()
        for path in sorted(changed):
            with contextlib.suppress(FileNotFoundError):  # removed since
                files[self._name(path)] = self._upload(path, databases, files.get(self._name(path)))
                self._signatures[self._name(path)] = signatures[path]
        names = {self._name(path) for path in signatures}
        files = {name: entry for name, entry in files.items() if name in names}
        if files == self.manifest["files"] and not everything:
            return False
        manifest = {**note, "files": files}
        body = json.dumps(manifest, indent=1).encode()
        self._s3.put_object(Bucket=self._bucket, Key=self._prefix + "manifest.json", Body=body, **self._encryption)
        self.manifest = manifest
        return True

    def _upload(self, path: Path, databases: set[Path], known: dict | None) -> dict:
        with contextlib.ExitStack() as stack:
            if path in databases:
                copy = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=self._folder, prefix="."))) / path.name
                _copy_database(path, copy)
                path = copy
            # Open while it is hashed and sent: a new checkpoint renamed over it does not change this one.
            file = stack.enter_context(path.open("rb"))
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            entry = {"sha256": digest, "bytes": file.tell()}
            if entry != known:
                file.seek(0)
                self._s3.upload_fileobj(file, self._bucket, self._prefix + digest, ExtraArgs=self._encryption)
            return entry

    def _paths(self) -> list[Path]:
        """The files to keep, without what is half-written (hidden) or belongs to an open database."""
        return [
            path
            for path in sorted(self._folder.rglob("*"))
            if path.is_file()
            and not path.name.endswith(SQLITE_SIDE_FILES)
            and not any(part.startswith(".") for part in path.relative_to(self._folder).parts)
        ]

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()

    def _load(self) -> dict:
        body = self._get("manifest.json")
        try:
            manifest = json.loads(body or b"")
            return manifest if all(entry["sha256"] for entry in manifest["files"].values()) else {"files": {}}
        except (ValueError, KeyError, TypeError, AttributeError):
            return {"files": {}}

    def _get(self, name: str) -> bytes | None:
        try:
            return self._s3.get_object(Bucket=self._bucket, Key=self._prefix + name)["Body"].read()
        except ClientError as error:
            # A missing object is an AccessDenied to whom may not list the bucket; a true refusal shows on upload.
            if error.response["Error"]["Code"] in ("NoSuchKey", "AccessDenied"):
                return None
            raise


def _is_database(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(SQLITE_HEADER)) == SQLITE_HEADER
    except FileNotFoundError:
        return False


def _copy_database(path: Path, copy: Path) -> None:
    """A consistent copy of a database that others may be writing to."""
    with (
        contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=30)) as source,
        contextlib.closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)


def _signature(path: Path) -> tuple:
    """What changes when a file, or the log beside a database, is written."""
    found = []
    for file in (path, path.with_name(path.name + "-wal")):
        with contextlib.suppress(FileNotFoundError):
            status = file.stat()
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
