"""The settings of a stack: Terraform's output `submission` as a JSON file."""

from __future__ import annotations

import json
import os
from pathlib import Path

from classifier.mistake import Mistake

SETTINGS = (
    "bucket",
    "code_key",
    "image_uri",
    "instance_type",
    "kms_key_arn",
    "name",
    "region",
    "role_arn",
    "security_group_ids",
    "subnet_ids",
)


def read_settings(path: Path | None) -> dict:
    """The file's content; without a path that of $SUBMISSION_SETTINGS, else of submission.json beside submit.py.

    Raises Mistake where the file or one of the settings is missing.
    """
    path = path or Path(os.environ.get("SUBMISSION_SETTINGS") or Path(__file__).parents[1] / "submission.json")
    try:
        settings = json.loads(path.read_text())
    except OSError as error:
        remedy = "write it with: terraform output -json submission"
        raise Mistake(f"--settings {path}: {error.strerror}: {remedy} > {path}") from error
    except ValueError as error:
        raise Mistake(f"--settings {path}: not JSON: {error}") from error
    if missing := [key for key in SETTINGS if not (isinstance(settings, dict) and settings.get(key))]:
        raise Mistake(f"--settings {path}: lacks {', '.join(missing)}: write it with terraform output -json submission")
    return settings
