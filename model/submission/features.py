"""The features of a frozen backbone as a job's input, so that it does not extract them again.

    training/<job>/checkpoints/features/features.db    what a training job extracted
    features/<sha256>/features.db                      what was extracted elsewhere, under the name of its content

train.py finds a picture's features there by the picture's content, the backbone's weights, the preprocessing and the
precision; what it does not find it extracts.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from classifier.feature_cache import APPLICATION, DATABASE
from classifier.jobs import FEATURES, checkpoints_uri
from classifier.mistake import Mistake
from classifier.release import exists

from submission.dataset import sha256_of
from submission.request import JOB


class Features(NamedTuple):
    """uri: S3 folder. name: as the user gave it. file: what is to be uploaded there; None for what a job left."""

    uri: str
    name: str
    file: Path | None


def find_features(name: str, settings: dict, scratch: Path) -> Features:
    """Features by the name of a local folder or of a training job; a folder's are copied to scratch. Raises Mistake."""
    folder = Path(name)
    if folder.is_dir():
        copy = snapshot(folder, scratch / DATABASE)
        return Features(f"s3://{settings['bucket']}/features/{sha256_of(copy)}/", name, copy)
    if not JOB.fullmatch(name):
        raise Mistake(f"--features {name}: no such folder, and no job's name: give a finished training job or a folder")
    return Features(checkpoints_uri(settings, name) + FEATURES, name, None)


def snapshot(folder: Path, copy: Path) -> Path:
    """A whole copy of a folder's database, even while a training writes to it, or after one was killed at that."""
    path = folder / DATABASE
    if not path.is_file():
        raise Mistake(f"--features {folder}: no {DATABASE} in it: give train.py's --feature-cache folder")
    copy.unlink(missing_ok=True)
    try:
        with (
            closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            if source.execute("PRAGMA application_id").fetchone() != (APPLICATION,):
                raise sqlite3.DatabaseError("not a feature cache")
            source.backup(target)
    except sqlite3.Error as error:
        raise Mistake(f"--features {folder}: {DATABASE} cannot be read: {error}: let train.py write it anew") from error
    return copy


def provide(s3, features: Features, settings: dict) -> None:
    """Upload a folder's features unless the bucket has them; Mistake where a job left none."""
    bucket, _, prefix = features.uri.removeprefix("s3://").partition("/")
    if exists(s3, bucket, prefix + DATABASE):
        return
    if not features.file:
        remedy = "name a job that has finished and extracted them itself"
        raise Mistake(f"--features {features.name}: that job left no {features.uri}{DATABASE}: {remedy}")
    encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": settings["kms_key_arn"]}
    s3.upload_file(str(features.file), bucket, prefix + DATABASE, ExtraArgs=encryption)
